"""Rows of the form {"conversations": [{"from": "human", "value": "..."}, ...], "system": "..."}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainyard_trainer.tasks.text.formats.example import Example, Message, Role, Row
from trainyard_trainer.tasks.text.formats.messages import role_of

ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


def parse(row: Row) -> Example:
    """The conversation of a row.

    Raises:
        RowError: a turn is not an object with a known speaker and a text, or the turns make no conversation.
    """
    system = row.text("system", optional=True)
    messages = [Message("system", system)] if system else []
    messages += [_message(row, number, turn) for number, turn in row.objects("conversations")]
    return row.conversation(messages)


def _message(row: Row, number: int, turn: Mapping[str, Any]) -> Message:
    role = role_of(row, f"conversations[{number}].from", turn.get("from"), ROLES)
    content = row.checked_text(turn.get("value"), f"conversations[{number}].value")
    return Message(role, content, row.loss_of(turn, role, f"conversations[{number}].loss"))
