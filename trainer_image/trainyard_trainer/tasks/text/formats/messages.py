"""Rows of the form {"messages": [{"role": "user", "content": "..."}, ...]}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from trainyard_trainer.tasks.text.formats.example import Example, Message, Role, Row, kind_of

ROLES: dict[str, Role] = {role: role for role in get_args(Role)}


def parse(row: Row) -> Example:
    """The conversation of a row.

    Raises:
        RowError: a turn is not an object with a known role and a text, or the turns make no conversation.
    """
    return row.conversation([_message(row, number, turn) for number, turn in row.objects("messages")])


def _message(row: Row, number: int, turn: Mapping[str, Any]) -> Message:
    role = role_of(row, f"messages[{number}].role", turn.get("role"), ROLES)
    content = row.checked_text(turn.get("content"), f"messages[{number}].content")
    return Message(role, content, row.loss_of(turn, role, f"messages[{number}].loss"))


def role_of(row: Row, field: str, value: object, roles: Mapping[str, Role]) -> Role:
    """The role that `value` names.

    Raises:
        RowError: it names none of `roles`.
    """
    if isinstance(value, str) and value in roles:
        return roles[value]
    found = f"'{value[:40]}'" if isinstance(value, str) else kind_of(value)
    problem, remedy = f"field '{field}' is {found}, an unknown role", f"Use one of {', '.join(roles)}."
    raise row.error(problem, remedy, kind="UnknownRole", field=field)
