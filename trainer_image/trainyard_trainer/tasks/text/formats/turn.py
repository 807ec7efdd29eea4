"""One turn of `messages` or `conversations`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainyard_trainer.data.rows import Row, type_name
from trainyard_trainer.data.writers import ColumnType
from trainyard_trainer.tasks.text.formats.content import parse_content, tool_responses
from trainyard_trainer.tasks.text.formats.example import Message, Role
from trainyard_trainer.tasks.text.formats.tools import calls_of, parse_calls, write_calls

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
}
"""Both formats accept the names of both."""
_REASONING = ("reasoning_content", "reasoning", "thinking")
_LOSS = ("loss", "weight", "train")
_KNOWN = frozenset(
    {
        *("role", "from", "content", "value", "tool_calls", "function_call", "tool_call_id", "name", "refusal"),
        *(*_REASONING, *_LOSS),
    }
)
FUNCTION_CALL = "function_call"
"""The role of a ShareGPT turn whose text is the calls of an answer."""


@dataclass(frozen=True)
class TurnNames:
    """How a format names what a turn has; the other format's names are read too."""

    turns: str
    role: str
    content: str
    other_role: str
    other_content: str
    roles: tuple[str, ...]
    """Names of roles for messages."""


def parse_turn(row: Row, names: TurnNames, number: int, turn: Mapping[str, Any]) -> Iterator[Message]:
    """The turn; several where a tool turn holds several results.

    Raises:
        RowError: role, content or another field is wrong.
    """
    place = f"{names.turns}[{number}]"
    spoken = names.role if turn.get(names.role) is not None or names.other_role not in turn else names.other_role
    written = names.content if names.content in turn or names.other_content not in turn else names.other_content
    role = _role(row, names, f"{place}.{spoken}", turn.get(spoken))
    is_call = turn[spoken] == FUNCTION_CALL
    if turn.keys() == {spoken, written} and isinstance(turn[written], str) and role != "tool" and not is_call:
        yield Message(role, row.checked_text(turn[written], f"{place}.{written}"))
        return
    loss = parse_loss(row, turn, role, place)
    if role == "assistant":
        yield _answer(row, turn, place, written, is_call=is_call, loss=loss)
        return
    content, _ = parse_content(row, turn.get(written), f"{place}.{written}")
    name = _optional_text(row, turn, "name", place)
    if role == "tool":
        identity = _optional_text(row, turn, "tool_call_id", place)
        for result in tool_responses(content):
            yield Message(role, result, loss, tool_call_id=identity, name=name)
    else:
        yield Message(role, content, loss, name=name)


def _answer(row: Row, turn: Mapping[str, Any], place: str, written: str, *, is_call: bool, loss: bool) -> Message:
    thought = next((_optional_text(row, turn, name, place) for name in _REASONING if turn.get(name)), "")
    name = _optional_text(row, turn, "name", place)
    if is_call:
        before, text = _reasoning_before(row.checked_text(turn.get(written), f"{place}.{written}"))
        thought = thought or before
        calls = calls_of(row, text, f"{place}.{written}")
        return Message("assistant", "", loss, reasoning=thought, tool_calls=calls, name=name)
    calls = parse_calls(row, turn, place)
    value = turn.get(written)
    if value is None:
        value = turn.get("refusal")
    # An answer of calls or of reasoning may have no content.
    content, parts = parse_content(row, "" if value is None and calls else value, f"{place}.{written}")
    return Message("assistant", content, loss, reasoning=thought or parts, tool_calls=calls, name=name)


def _reasoning_before(text: str) -> tuple[str, str]:
    """The reasoning in <think> tags before calls, and the calls."""
    if not text.lstrip().startswith("<think>"):
        return "", text
    reasoning, _, calls = text.partition("</think>")
    return reasoning.replace("<think>", "").strip(), calls


def _role(row: Row, names: TurnNames, field: str, value: object) -> Role:
    """The role that `value` names.

    Raises:
        RowError: it names none.
    """
    if isinstance(value, str) and value in _ROLES:
        return _ROLES[value]
    found = f"'{value[:40]}'" if isinstance(value, str) else type_name(value)
    remedy = f"Use one of {', '.join(names.roles)}."
    raise row.error(f"field '{field}' is {found}, an unknown role", remedy, kind="UnknownRole", field=field)


def _optional_text(row: Row, turn: Mapping[str, Any], field: str, place: str) -> str:
    value = turn.get(field)
    return "" if value is None else row.checked_text(value, f"{place}.{field}")


def parse_loss(row: Row, turn: Mapping[str, Any], role: Role, place: str) -> bool:
    """Whether a turn carries loss, by its optional `loss`, `train` (true, false) or `weight` (1, 0).

    Raises:
        RowError: the value is another one, two of them differ, or one asks for loss at a turn that is no answer.
    """
    found: bool | None = None
    for name in _LOSS:
        value = turn.get(name)
        if value is None:
            continue
        field = f"{place}.{name}"
        if name == "weight" and (value not in (0, 1) or isinstance(value, str)):
            shown = f"{value:g}" if isinstance(value, int | float) else type_name(value)
            remedy = "Write 1 for loss and 0 for none, without quotes."
            raise row.error(f"field '{field}' is {shown}", remedy, kind="WrongValue", field=field)
        if name != "weight" and not isinstance(value, bool):
            remedy = "Write true or false, without quotes."
            raise row.error(f"field '{field}' is {type_name(value)}", remedy, kind="WrongType", field=field)
        if found is not None and found != bool(value):
            problem = f"field '{field}' contradicts another field of the turn"
            raise row.error(problem, f"Keep one of {', '.join(_LOSS)}.", kind="WrongValue", field=field)
        found = bool(value)
        if found and role != "assistant":
            remedy = "Remove it: only answers take loss; trainOn: all trains on every turn of a row."
            raise row.error(f"field '{field}' is at a {role} turn", remedy, kind="WrongValue", field=field)
    return found is not False


def unused_fields(turn: Mapping[str, Any]) -> Iterator[str]:
    """Fields of a turn that training does not use, except those without a value."""
    for name in turn.keys() - _KNOWN:
        if turn[name] not in (None, "", [], {}):
            yield name


def write_turn(message: Message, names: TurnNames, role: str) -> dict[str, object]:
    """The turn as an object; fields without a value are left out."""
    extra: dict[str, object] = {
        "reasoning_content": message.reasoning,
        "tool_calls": write_calls(message.tool_calls),
        "tool_call_id": message.tool_call_id,
        "name": message.name,
    }
    turn: dict[str, object] = {names.role: role, names.content: message.content}
    turn.update({key: value for key, value in extra.items() if value})
    return turn if message.loss else {**turn, "loss": False}


def turn_schema(names: TurnNames) -> dict[str, ColumnType]:
    """Fields of every turn that `write_turn` returns, for a Parquet file."""
    call: ColumnType = {"id": str, "type": str, "function": {"name": str, "arguments": str}}
    texts: dict[str, ColumnType] = dict.fromkeys(
        (names.role, names.content, "reasoning_content", "tool_call_id", "name"), str
    )
    return {**texts, "tool_calls": [call], "loss": bool}


def write_function_call(message: Message) -> str:
    """The calls of an answer as the text of a ShareGPT turn."""
    calls = [{"name": call.name, "arguments": call.arguments} for call in message.tool_calls]
    return json.dumps(calls[0] if len(calls) == 1 else calls, ensure_ascii=False)
