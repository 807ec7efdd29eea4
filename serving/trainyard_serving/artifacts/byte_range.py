"""The Range header of HTTP: one range of bytes. Pure."""

from __future__ import annotations

import re

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class UnsatisfiableError(ValueError):
    """A range lies outside the file."""


def parse(header: str | None, size: int) -> tuple[int, int] | None:
    """Return start and end (exclusive) of the requested range; None for the whole file.

    Raises:
        UnsatisfiableError: the range is malformed or lies outside the file.
    """
    if header is None:
        return None
    match = _RANGE.fullmatch(header.strip())
    if match is None or not (match[1] or match[2]):
        raise UnsatisfiableError(header)
    if not match[1]:
        start, end = max(0, size - int(match[2])), size
    else:
        start, end = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
    if start >= end:
        raise UnsatisfiableError(header)
    return start, end
