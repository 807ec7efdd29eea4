"""Refuses media that the engine would fetch from elsewhere: it could reach what its clients cannot. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_SUFFIX = "_url"
_INLINE = "data:"


def remote_media(body: dict[str, Any]) -> str | None:
    """Return the kind of the first part of a request whose URL is not inline (`data:`), for example image_url."""
    return next(_remote(body.get("messages") or body.get("input")), None)


def _remote(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for entry in node:
            yield from _remote(entry)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key.endswith(_SUFFIX) and not _is_inline(value):
                yield key
            elif key == "content":
                yield from _remote(value)


def _is_inline(value: Any) -> bool:
    url = value.get("url") if isinstance(value, dict) else value
    return isinstance(url, str) and url.startswith(_INLINE)
