"""Rows of the form {"query": "...", "response": "...", "history": [["...", "..."]], "system": "..."}."""

from __future__ import annotations

from trainyard_trainer.tasks.text.formats.example import Example, Row


def parse(row: Row) -> Example:
    """The conversation of a row, earlier pairs first.

    Raises:
        RowError: a field is missing or not text.
    """
    return row.dialogue([*row.history(), (row.text("query"), row.text("response"))])
