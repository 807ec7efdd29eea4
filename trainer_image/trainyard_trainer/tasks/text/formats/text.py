"""Rows like {"text": "..."}: every token carries loss."""

from __future__ import annotations

from trainyard_trainer.data.rows import Row
from trainyard_trainer.tasks.text.formats.example import Example
from trainyard_trainer.tasks.text.formats.row_format import RowFormat


def parse(row: Row) -> Example:
    """The text of a row.

    Raises:
        RowError: it is missing, not text, or empty.
    """
    text = row.text("text")
    if not text:
        raise row.error("field 'text' is empty", "Write the text, or remove the row.", kind="EmptyText", field="text")
    return Example(text=text)


FORMAT = RowFormat(name="text", required=("text",), interpret=parse)
