"""The tokenizer of a GGUF file: llama.cpp then splits a text into the tokens of training.

llama.cpp splits texts by code of its own, which a name in the file selects. A tokenizer is written only where every
part of it is known to be reproduced by that code; `gguf_byte_level` and `gguf_sentencepiece` hold the two kinds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import count
from typing import Any

from gguf import GGUFWriter, TokenType

from trainyard_trainer.errors import ConfigurationError
from trainyard_trainer.tasks.text.export import gguf_byte_level, gguf_sentencepiece
from trainyard_trainer.tasks.text.export.gguf_pipeline import Document, parts_of

_ADVICE = (
    "Leave gguf out of spec.exports. Known are tokenizers of byte-level BPE with the splits of {splits}, and of "
    "SentencePiece BPE with byte fallback as in Llama 2, Mistral 7B v0.1 and Gemma."
)
_NORMALIZATION_REMARK = (
    "llama.cpp does not bring texts to the Unicode form NFC, which this tokenizer does: texts with separate combining "
    "marks become other tokens there."
)
_FLAGS = {
    "lstrip": "takes in white space before it",
    "rstrip": "takes in white space after it",
    "single_word": "is found only as a word of its own",
}
_NAMED = ("bos", "eos", "unk", "pad", "sep", "cls", "mask")


def check_tokenizer(tokenizer: Any, config: Mapping[str, Any], name: str) -> None:
    """Refuse tokenizers that llama.cpp does not reproduce.

    Args:
        tokenizer: The tokenizer of transformers that texts are tokenised with.
        config: The model's config.json; its `vocab_size` is the number of rows of the embedding.
        name: The model's name in messages.

    Raises:
        ConfigurationError: It is one.
    """
    if not tokenizer.is_fast:
        raise ConfigurationError(
            f"The tokenizer of {name} has no tokenizer.json and cannot be converted to one.",
            "Leave gguf out of spec.exports.",
        )
    document = _document(tokenizer)
    _check_numbers(tokenizer, config["vocab_size"], name)
    problem = (
        _problem(document)
        or _added_token_problem(tokenizer, document)
        or _around_problem(tokenizer)
        or _end_problem(tokenizer, config)
    )
    if problem is not None:
        advice = _ADVICE.format(splits=", ".join(gguf_byte_level.KNOWN))
        raise ConfigurationError(f"The tokenizer of {name} cannot be written as gguf: {problem}.", advice)


def remark_on(tokenizer: Any) -> str | None:
    """Return what llama.cpp does otherwise than a tokenizer that `check_tokenizer` accepts; None when it is nothing."""
    normalizers = parts_of(_document(tokenizer), "normalizer")
    return _NORMALIZATION_REMARK if any(part["type"] == "NFC" for part in normalizers) else None


def write_tokenizer(writer: GGUFWriter, tokenizer: Any, config: Mapping[str, Any]) -> None:
    """Write every key of a tokenizer that `check_tokenizer` accepts.

    Args:
        writer: The file.
        tokenizer: The tokenizer of transformers that texts are tokenised with.
        config: The model's config.json. Rows of the embedding (`vocab_size`) without a token are written as unused.
    """
    document, vocabulary = _document(tokenizer), config["vocab_size"]
    tokens, types = _tokens(document, vocabulary)
    kind = gguf_sentencepiece if _is_sentencepiece(document) else gguf_byte_level
    kind.write(writer, document, tokens, types)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    _write_special_tokens(writer, tokenizer, config)


def _document(tokenizer: Any) -> Document:
    document: Document = json.loads(tokenizer.backend_tokenizer.to_str())
    return document


def _problem(document: Document) -> str | None:
    """Return why llama.cpp would split texts differently; None when it does not."""
    kind = document["model"]["type"]
    if kind == "Unigram":
        return "it is a Unigram model, whose texts llama.cpp would split differently"
    if kind != "BPE":
        return f"it is of the type {kind}"
    return gguf_sentencepiece.problem(document) if _is_sentencepiece(document) else gguf_byte_level.problem(document)


def _check_numbers(tokenizer: Any, vocabulary: int, name: str) -> None:
    text, number = max(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    if number >= vocabulary:
        raise ConfigurationError(
            f"The tokenizer of {name} cannot be written as gguf: its token {text} has the number {number}, but the "
            f"model has embeddings for {vocabulary} tokens.",
            "Leave gguf out of spec.exports, remove the token from the tokenizer's files, or resize the embedding.",
        )


def _added_token_problem(tokenizer: Any, document: Document) -> str | None:
    """Return how an added token is found in a text otherwise than by llama.cpp, which looks for its plain text."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    for token in document["added_tokens"]:
        text = token["content"]
        for flag, meaning in _FLAGS.items():
            if token[flag]:
                return f"its token {text} {meaning}, which llama.cpp does not do"
        if token["normalized"] and normalizer is not None and normalizer.normalize_str(text) != text:
            return f"its token {text} is looked for in the normalised text, which llama.cpp does not do"
    return None


def _around_problem(tokenizer: Any) -> str | None:
    before, after = _around_text(tokenizer)
    if before in ([], [tokenizer.bos_token_id]) and after in ([], [tokenizer.eos_token_id]):
        return None
    added = " ".join(tokenizer.convert_ids_to_tokens([*before, *after]))
    return f"it puts {added} around a text, and llama.cpp its first and its last token only (bos_token, eos_token)"


def _around_text(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the tokens that are added before and after a text."""
    bare, whole = tokenizer.encode("a", add_special_tokens=False), tokenizer.encode("a")
    start = next(at for at in range(len(whole)) if whole[at : at + len(bare)] == bare)
    return whole[:start], whole[start + len(bare) :]


def _end_problem(tokenizer: Any, config: Mapping[str, Any]) -> str | None:
    """Without the number of an end token, llama.cpp ends answers at a number of its own."""
    return None if _number_of("eos", tokenizer, config) is not None else "it names no end of text (eos_token)"


def _is_sentencepiece(document: Document) -> bool:
    return bool(document["model"].get("byte_fallback"))


def _tokens(document: Document, vocabulary: int) -> tuple[list[str], list[TokenType]]:
    """Return the token of every row of the embedding; rows without one are unused."""
    found = {number: (text, TokenType.NORMAL) for text, number in document["model"]["vocab"].items()}
    for added in document["added_tokens"]:
        found[added["id"]] = (added["content"], TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED)
    taken = {text for text, _ in found.values()}
    unused = (name for name in map("[PAD{}]".format, count()) if name not in taken)  # llama.cpp wants distinct ones
    rows = [found[number] if number in found else (next(unused), TokenType.UNUSED) for number in range(vocabulary)]
    return [text for text, _ in rows], [kind for _, kind in rows]


def _write_special_tokens(writer: GGUFWriter, tokenizer: Any, config: Mapping[str, Any]) -> None:
    """Write the numbers of named tokens, which of them belong around a text, and the chat template."""
    numbers = {kind: _number_of(kind, tokenizer, config) for kind in _NAMED}
    for kind, number in numbers.items():
        if number is not None:
            getattr(writer, f"add_{kind}_token_id")(number)
    before, after = _around_text(tokenizer)
    writer.add_add_bos_token(bool(before))
    writer.add_add_eos_token(bool(after))
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = [{"name": name, "template": text} for name, text in template.items()]
    if template:
        writer.add_chat_template(template)


def _number_of(kind: str, tokenizer: Any, config: Mapping[str, Any]) -> int | None:
    """Return the number of a named token: the tokenizer's, else config.json's. llama.cpp has defaults of its own."""
    number = getattr(tokenizer, f"{kind}_token_id", None)
    if number is None:
        number = config.get(f"{kind}_token_id")
        number = number[0] if isinstance(number, list) and number else number
    return number if isinstance(number, int) and 0 <= number < config["vocab_size"] else None
