"""The parts of a tokenizer.json, as lists that can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Document = Mapping[str, Any]

_LISTS = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers"}
_WITHOUT_EFFECT = ("trim_offsets",)


def parts_of(document: Document, part: str) -> list[Document]:
    """Return the normalizers or pre-tokenizers of a tokenizer in order, without settings that change no token.

    Args:
        document: tokenizer.json.
        part: `normalizer` or `pre_tokenizer`.
    """
    return _flat(document.get(part), _LISTS[part])


def _flat(part: Document | None, inner: str) -> list[Document]:
    if part is None:
        return []
    if inner in part:
        return [leaf for one in part[inner] for leaf in _flat(one, inner)]
    return [{key: value for key, value in part.items() if key not in _WITHOUT_EFFECT}]
