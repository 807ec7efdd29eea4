"""Replaces the engine's name of an adapter by its public one in answers. Pure."""

from __future__ import annotations


class Replacer:
    """Replaces a text in a stream of bytes, also where a chunk ends in the middle of it.

    Args:
        old: The text to replace; not empty.
        new: Its replacement.
    """

    def __init__(self, old: bytes, new: bytes) -> None:
        self._old, self._new = old, new
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return what can be passed on; an end that may be the beginning of the text is held back."""
        data = (self._held + chunk).replace(self._old, self._new)
        length = self._partial(data)
        self._held = data[len(data) - length :]
        return data[: len(data) - length]

    def finish(self) -> bytes:
        """Return what was held back."""
        held, self._held = self._held, b""
        return held

    def _partial(self, data: bytes) -> int:
        """Return how many bytes at the end are a beginning of the text."""
        for length in range(min(len(self._old) - 1, len(data)), 0, -1):
            if data.endswith(self._old[:length]):
                return length
        return 0
