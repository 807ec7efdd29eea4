"""Rows like {"messages": [{"role": "user", "content": "..."}, ...], "tools": [...]}."""

from __future__ import annotations

from trainyard_trainer.data.rows import Row
from trainyard_trainer.tasks.text.formats.conversation import turns_conversation, write_row_fields
from trainyard_trainer.tasks.text.formats.example import Example
from trainyard_trainer.tasks.text.formats.row_format import CONVERSATION_FIELDS, NESTED_FIELDS, RowFormat, Target
from trainyard_trainer.tasks.text.formats.turn import TurnNames, turn_schema, write_turn

_NAMES = TurnNames(
    turns="messages",
    role="role",
    content="content",
    other_role="from",
    other_content="value",
    roles=("system", "user", "assistant", "tool"),
)


def parse(row: Row) -> Example:
    """The conversation of a row.

    Raises:
        RowError: a turn is not an object with a known role and a text, or the turns make no conversation.
    """
    return turns_conversation(row, _NAMES)


def write(_row: Row, example: Example) -> dict[str, object]:
    """The conversation as a list of turns."""
    turns = [write_turn(message, _NAMES, message.role) for message in example.messages]
    return {"messages": turns, **write_row_fields(example)}


FORMAT = RowFormat(
    name="messages",
    required=("messages",),
    optional=CONVERSATION_FIELDS,
    nested=("messages", *NESTED_FIELDS),
    turns="messages",
    interpret=parse,
    target=Target(write=write, schema={"messages": [turn_schema(_NAMES)]}),
)
