"""Rows like {"messages": [{"role": "user", "content": "..."}, ...]}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from trainyard_trainer.data.rows import Row
from trainyard_trainer.tasks.text.formats.conversation import conversation, parse_loss, parse_role, turns, write_turn
from trainyard_trainer.tasks.text.formats.example import Example, Message, Role
from trainyard_trainer.tasks.text.formats.row_format import RowFormat, Target

_ROLES: dict[str, Role] = {role: role for role in get_args(Role)}


def parse(row: Row) -> Example:
    """The conversation of a row.

    Raises:
        RowError: a turn is not an object with a known role and a text, or the turns make no conversation.
    """
    return conversation(row, [_message(row, number, turn) for number, turn in turns(row, "messages")])


def _message(row: Row, number: int, turn: Mapping[str, Any]) -> Message:
    role = parse_role(row, f"messages[{number}].role", turn.get("role"), _ROLES)
    content = row.checked_text(turn.get("content"), f"messages[{number}].content")
    return Message(role, content, parse_loss(row, turn, role, f"messages[{number}].loss"))


def write(_row: Row, example: Example) -> dict[str, object]:
    """The conversation as a list of turns."""
    return {"messages": [write_turn(message, "role", message.role, "content") for message in example.messages]}


FORMAT = RowFormat(
    name="messages",
    required=("messages",),
    nested=("messages",),
    turns="messages",
    parse=parse,
    target=Target(write=write, schema={"messages": [{"role": str, "content": str, "loss": bool}]}),
)
