"""The tokenizer of a GGUF file: llama.cpp then splits a text into the same tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, SpecialVocab, TokenType

from trainyard_trainer.errors import ConfigurationError

_SPACE = "\u2581"
"""SentencePiece's sign for a space."""
_PRE_TOKENIZERS = {
    # How text is split before BPE, known by the group of digits in the pattern.
    r"\p{N}{1,3}": "llama-bpe",
    r"|\p{N}|": "qwen2",
}
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_ADVICE = (
    "Leave gguf out of spec.exports. Known are tokenizers (tokenizer.json) of byte-level BPE of the GPT-2, Llama 3 and "
    "Qwen kinds, and of SentencePiece BPE with byte fallback of the Llama 2, Mistral and Gemma kinds."
)

Document = Mapping[str, Any]


def check_tokenizer(directory: Path, name: str) -> None:
    """Refuse tokenizers that llama.cpp does not reproduce.

    Raises:
        ConfigurationError: The model has one.
    """
    if not (directory / "tokenizer.json").is_file():
        raise ConfigurationError(
            f"{name} has no tokenizer.json, which an export as gguf reads.",
            "Leave gguf out of spec.exports, or add one: load the tokenizer in transformers and call save_pretrained.",
        )
    problem = _problem(_read(directory))
    if problem is not None:
        raise ConfigurationError(f"The tokenizer of {name} is none that can be written as gguf: {problem}.", _ADVICE)


def write_tokenizer(writer: GGUFWriter, directory: Path, vocabulary: int) -> None:
    """Write every key of a tokenizer that `check_tokenizer` accepts.

    Args:
        writer: The file.
        directory: The tokenizer.
        vocabulary: Rows of the model's embedding; those without a token are written as unused.
    """
    document = _read(directory)
    tokens, types = _tokens(document, vocabulary)
    pieces = _is_sentencepiece(document)
    writer.add_tokenizer_model("llama" if pieces else "gpt2")
    writer.add_tokenizer_pre("default" if pieces else _pre_tokenizer(document) or "default")
    if pieces:
        _mark_bytes(document, tokens, types)
        writer.add_token_scores(_scores(document, tokens))
        writer.add_add_space_prefix(_prepends_space(document))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    SpecialVocab(directory, load_merges=not pieces, n_vocab=vocabulary).add_to_gguf(writer, quiet=True)


def _read(directory: Path) -> Document:
    document: Document = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    return document


def _problem(document: Document) -> str | None:
    """Return why the tokenizer cannot be written; None when it can."""
    model = document.get("model") or {}
    if model.get("type") == "Unigram":
        return "it is a Unigram model, whose texts llama.cpp would split differently"
    if model.get("type") != "BPE":
        return f"it is of the type {model.get('type')}"
    if not model.get("byte_fallback"):
        return None if _pre_tokenizer(document) else "it splits text in a way that llama.cpp has no name for"
    return _sentencepiece_problem(document, model)


def _sentencepiece_problem(document: Document, model: Document) -> str | None:
    missing = [byte for byte in _BYTES if byte not in model["vocab"]]
    if missing:
        return f"it has no token {missing[0]}, and so none for a character that is in no other token"
    odd = [name for name in ("continuing_subword_prefix", "end_of_word_suffix", "ignore_merges") if model.get(name)]
    if odd:
        return f"it uses {odd[0]}"
    unknown = [_kind(part) for part in _normalizers(document) if not _is_known_normalizer(part)]
    unknown += [_kind(part) for part in _pre_tokenizers(document) if not _is_known_pre_tokenizer(part, model)]
    return f"it changes text by {unknown[0]}" if unknown else None


def _is_known_normalizer(part: Document) -> bool:
    """Whether a normalizer only replaces spaces by the sign or prepends one, as llama.cpp does."""
    if part["type"] == "Replace":
        return bool(part["pattern"] == {"String": " "} and part["content"] == _SPACE)
    return bool(part["type"] == "Prepend" and part["prepend"] == _SPACE)


def _is_known_pre_tokenizer(part: Document, model: Document) -> bool:
    """Whether a pre-tokenizer splits only at spaces that no token contains."""
    if part["type"] == "Split":
        return bool(part["pattern"] == {"String": " "})  # the normalizer has left none
    splits = part.get("split", True) and any(_SPACE in token[1:] for token in model["vocab"])
    return bool(part["type"] == "Metaspace" and part["replacement"] == _SPACE and not splits)


def _is_sentencepiece(document: Document) -> bool:
    return bool(document["model"].get("byte_fallback"))


def _prepends_space(document: Document) -> bool:
    """Whether a space is prepended to a text. Unlike llama.cpp, Metaspace adds none to a text that begins with one."""
    schemes = [part.get("prepend_scheme") for part in _pre_tokenizers(document) if part["type"] == "Metaspace"]
    prepended = any(part["type"] == "Prepend" for part in _normalizers(document))
    return prepended or any(scheme != "never" for scheme in schemes)


def _tokens(document: Document, vocabulary: int) -> tuple[list[str], list[TokenType]]:
    """Return the token of every row of the embedding; rows without one are unused."""
    tokens = [f"[PAD{number}]" for number in range(vocabulary)]
    types = [TokenType.UNUSED] * vocabulary
    for text, number in document["model"]["vocab"].items():
        tokens[number], types[number] = text, TokenType.NORMAL
    for added in document.get("added_tokens", []):
        number = added["id"]
        tokens[number] = added["content"]
        types[number] = TokenType.CONTROL if added.get("special") else TokenType.USER_DEFINED
    return tokens, types


def _mark_bytes(document: Document, tokens: list[str], types: list[TokenType]) -> None:
    """Set the token types of SentencePiece; added tokens contain spaces, not the sign."""
    vocab = document["model"]["vocab"]
    for byte in _BYTES:
        types[vocab[byte]] = TokenType.BYTE
    if (unknown := document["model"].get("unk_token")) in vocab:
        types[vocab[unknown]] = TokenType.UNKNOWN
    for number, kind in enumerate(types):
        if kind is TokenType.USER_DEFINED:
            tokens[number] = tokens[number].replace(_SPACE, " ")


def _scores(document: Document, tokens: Sequence[str]) -> list[float]:
    """Return llama.cpp's merge scores, the highest first: each token's negative rank in the list of merges.

    SentencePiece scores the pieces of its BPE models in the same way.
    """
    merges = document["model"]["merges"]
    scores: dict[str, float] = {}
    for rank, merge in enumerate(merges):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        scores.setdefault(left + right, -float(rank))
    return [scores.get(token, -float(len(merges))) for token in tokens]


def _pre_tokenizer(document: Document) -> str | None:
    """Return llama.cpp's name of a byte-level BPE tokenizer's split; None for other tokenizers."""
    parts = _pre_tokenizers(document)
    if not any(part.get("type") == "ByteLevel" for part in parts):
        return None
    patterns = [part["pattern"].get("Regex", "") for part in parts if part.get("type") == "Split"]
    if not patterns:
        return "gpt-2"
    found = [name for mark, name in _PRE_TOKENIZERS.items() if mark in patterns[0]]
    return found[0] if len(patterns) == 1 and found else None


def _pre_tokenizers(document: Document) -> list[Document]:
    return _parts(document.get("pre_tokenizer"), "pretokenizers")


def _normalizers(document: Document) -> list[Document]:
    return _parts(document.get("normalizer"), "normalizers")


def _parts(part: Document | None, name: str) -> list[Document]:
    return [] if part is None else list(part.get(name, [part]))


def _kind(part: Document) -> str:
    return str(part.get("type"))
