"""Rows like {"instruction": "...", "input": "...", "output": "...", "history": [...], "system": "..."}."""

from __future__ import annotations

from trainyard_trainer.data.rows import Row
from trainyard_trainer.tasks.text.formats.conversation import dialogue, history, write_dialogue
from trainyard_trainer.tasks.text.formats.example import Example
from trainyard_trainer.tasks.text.formats.row_format import CONVERSATION_FIELDS, NESTED_FIELDS, RowFormat, Target


def parse(row: Row) -> Example:
    """Instruction and input, separated by a blank line, are the question; output is the answer.

    Raises:
        RowError: a field is missing or not text.
    """
    instruction, given = row.text("instruction"), row.text("input", optional=True)
    question = f"{instruction}\n\n{given}" if given else instruction
    return dialogue(row, [*history(row), (question, row.text("output"))])


def write(row: Row, example: Example) -> dict[str, object]:
    """The fields of a conversation; raises RowError where they cannot express it."""
    return write_dialogue(row, example, "instruction", "output")


FORMAT = RowFormat(
    name="alpaca",
    required=("instruction", "output"),
    optional=("input", "history", *CONVERSATION_FIELDS),
    nested=("history", *NESTED_FIELDS),
    interpret=parse,
    target=Target(write=write, schema={"instruction": str, "output": str, "history": [[str]], "system": str}),
)
