"""Byte-level BPE in a GGUF file: which name of llama.cpp stands for which split of a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from gguf import GGUFWriter, TokenType

from trainyard_trainer.tasks.text.export.gguf_pipeline import Document, parts_of

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT_4 = rf"{_CONTRACTIONS}{_WORDS}|\p{{N}}{{1,3}}{_REST}"
_QWEN = rf"{_CONTRACTIONS}{_WORDS}|\p{{N}}{_REST}"
_NEVER_IN_TEXT = {*range(0x20), 0x7F, 0xC0, 0xC1, 0xF1, 0xF2, *range(0xF5, 0x100)} - set(b"\t\n\r")
"""Bytes of control characters and of no assigned character; published vocabularies lack some of them."""


def _signs() -> list[str]:
    """Return the character that stands for each byte: itself where it can be printed, else the next from U+0100."""
    spare = count(0x100)
    return [chr(byte) if chr(byte).isprintable() and byte != 0x20 else chr(next(spare)) for byte in range(0x100)]


_SIGNS = _signs()


@dataclass(frozen=True)
class _Split:
    """One way to split a text before BPE.

    Attributes:
        models: Whose it is, for messages.
        parts: The pre-tokenizers of tokenizer.json.
        name: llama.cpp's name where merges apply to every word.
        name_of_whole_words: Its name where a word that is a token is not split; None where it has none.
    """

    models: str
    parts: Sequence[Document]
    name: str | None
    name_of_whole_words: str | None = None


def _bytes(*, splits: bool) -> Document:
    return {"type": "ByteLevel", "add_prefix_space": False, "use_regex": splits}


def _by(pattern: str) -> list[Document]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return [split, _bytes(splits=False)]


_SPLITS = (
    _Split("GPT-2", [_bytes(splits=True)], "gpt-2"),
    _Split("SmolLM", [{"type": "Digits", "individual_digits": True}, _bytes(splits=True)], "smollm"),
    _Split("Llama 3", _by(_GPT_4), "dbrx", "llama-bpe"),
    _Split("Qwen", _by(_QWEN), "qwen2"),
)
KNOWN = tuple(split.models for split in _SPLITS)
"""The models whose splits llama.cpp reproduces."""


def problem(document: Document) -> str | None:
    """Return why llama.cpp would split texts differently; None when it does not."""
    normalizers = [part["type"] for part in parts_of(document, "normalizer")]
    if normalizers not in ([], ["NFC"]):
        return f"it changes text by {normalizers[0]}"
    model = document["model"]
    odd = [name for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(name)]
    if odd:
        return f"it uses {odd[0]}"
    missing = [byte for byte in range(0x100) if byte not in _NEVER_IN_TEXT and _SIGNS[byte] not in model["vocab"]]
    if missing:
        return f"it has no token for the byte 0x{missing[0]:02X}"
    return None if _name(document) else "it splits text in a way that llama.cpp has no name for"


def write(writer: GGUFWriter, document: Document, _tokens: list[str], _types: list[TokenType]) -> None:
    """Write the split's name and the merges."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_name(document))
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in document["model"]["merges"]])


def _name(document: Document) -> str | None:
    """Return llama.cpp's name of the tokenizer's split; None where no name stands for exactly this split."""
    parts = [_as_isolated(part) for part in parts_of(document, "pre_tokenizer")]
    whole_words = document["model"].get("ignore_merges", False)
    found = next((split for split in _SPLITS if split.parts == parts), None)
    if found is None:
        return None
    return found.name_of_whole_words if whole_words else found.name


def _as_isolated(part: Document) -> Document:
    """Return a split that removes what its pattern leaves as one that keeps it: no pattern here leaves anything."""
    if part["type"] == "Split" and part["behavior"] == "Removed" and part["invert"]:
        return {**part, "behavior": "Isolated", "invert": False}
    return part
