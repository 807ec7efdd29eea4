"""Rows like {"query": "...", "response": "...", "history": [["...", "..."]], "system": "..."}."""

from __future__ import annotations

from trainyard_trainer.data.rows import Row
from trainyard_trainer.tasks.text.formats.conversation import dialogue, history, write_dialogue
from trainyard_trainer.tasks.text.formats.example import Example
from trainyard_trainer.tasks.text.formats.row_format import CONVERSATION_FIELDS, NESTED_FIELDS, RowFormat, Target


def parse(row: Row) -> Example:
    """The conversation of a row, earlier pairs first.

    Raises:
        RowError: a field is missing or not text.
    """
    return dialogue(row, [*history(row), (row.text("query"), row.text("response"))])


def write(row: Row, example: Example) -> dict[str, object]:
    """The fields of a conversation; raises RowError where they cannot express it."""
    return write_dialogue(row, example, "query", "response")


FORMAT = RowFormat(
    name="query-response",
    required=("query", "response"),
    optional=("history", *CONVERSATION_FIELDS),
    nested=("history", *NESTED_FIELDS),
    interpret=parse,
    target=Target(write=write, schema={"query": str, "response": str, "history": [[str]], "system": str}),
)
