"""Names of dataset rows in messages."""

from __future__ import annotations

from collections.abc import Iterable

_MAX_ROWS = 40
"""Rows that one message names."""


def named_rows(origins: Iterable[tuple[str, int]]) -> str:
    """Files with row numbers, without duplicates: "train.jsonl, rows 3, 8, 9"."""
    ordered = sorted(set(origins))
    named = ordered[:_MAX_ROWS]
    files = {file: [str(row) for name, row in named if name == file] for file, _ in named}
    text = "; ".join(f"{file}, row{'s' if len(rows) > 1 else ''} {', '.join(rows)}" for file, rows in files.items())
    more = len(ordered) - len(named)
    return f"{text} and {more} more" if more else text
