"""Rows of the form {"instruction": "...", "input": "...", "output": "...", "history": [...], "system": "..."}."""

from __future__ import annotations

from trainyard_trainer.tasks.text.formats.example import Example, Row


def parse(row: Row) -> Example:
    """Instruction and input, a blank line between them, are the question; output is the answer.

    Raises:
        RowError: a field is missing or not text.
    """
    instruction, given = row.text("instruction"), row.text("input", optional=True)
    question = f"{instruction}\n\n{given}" if given else instruction
    return row.dialogue([*row.history(), (question, row.text("output"))])
