"""Rows like {"conversations": [{"from": "human", "value": "..."}, ...], "system": "..."}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainyard_trainer.data.rows import Row
from trainyard_trainer.tasks.text.formats.conversation import conversation, parse_loss, parse_role, turns, write_turn
from trainyard_trainer.tasks.text.formats.example import Example, Message, Role
from trainyard_trainer.tasks.text.formats.row_format import RowFormat, Target

_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_SPEAKERS: dict[Role, str] = {"system": "system", "user": "human", "assistant": "gpt"}


def parse(row: Row) -> Example:
    """The conversation of a row.

    Raises:
        RowError: a turn is not an object with a known speaker and a text, or the turns make no conversation.
    """
    system = row.text("system", optional=True)
    messages = [Message("system", system)] if system else []
    messages += [_message(row, number, turn) for number, turn in turns(row, "conversations")]
    return conversation(row, messages)


def _message(row: Row, number: int, turn: Mapping[str, Any]) -> Message:
    role = parse_role(row, f"conversations[{number}].from", turn.get("from"), _ROLES)
    content = row.checked_text(turn.get("value"), f"conversations[{number}].value")
    return Message(role, content, parse_loss(row, turn, role, f"conversations[{number}].loss"))


def write(_row: Row, example: Example) -> dict[str, object]:
    """The conversation as a list of turns."""
    return {"conversations": [write_turn(one, "from", _SPEAKERS[one.role], "value") for one in example.messages]}


FORMAT = RowFormat(
    name="sharegpt",
    required=("conversations",),
    optional=("system",),
    nested=("conversations",),
    turns="conversations",
    parse=parse,
    target=Target(write=write, schema={"conversations": [{"from": str, "value": str, "loss": bool}]}),
)
