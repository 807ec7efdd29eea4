"""Tools of a row and tool calls of its turns, in the notations of OpenAI, ShareGPT and Hermes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from trainyard_trainer.data.rows import Row, type_name
from trainyard_trainer.tasks.text.formats.example import Message, ToolCall

RESERVED_OPTIONS = ("messages", "tools", "documents", "add_generation_prompt", "tokenize", "chat_template")
"""Variables that a row must not set: the trainer sets them."""


def parse_tools(row: Row) -> tuple[Mapping[str, Any], ...]:
    """The functions in the row's optional `tools`, or the older `functions`: a list, or its JSON text.

    Raises:
        RowError: it is not a list of functions with names.
    """
    field = "functions" if row.values.get("tools") in (None, "", []) else "tools"
    values = row.values.get(field)
    if values in (None, "", []):
        return ()
    values = _json(row, values, field)
    if not isinstance(values, list):
        problem = f"field '{field}' must be a list of functions but is {type_name(values)}"
        raise row.error(problem, _TOOLS_REMEDY, kind="WrongType", field=field)
    return tuple(_tool(row, tool, f"{field}[{number}]") for number, tool in enumerate(values))


_TOOLS_REMEDY = 'Write every one like {"type": "function", "function": {"name": "...", "parameters": {...}}}.'


def _tool(row: Row, value: object, place: str) -> Mapping[str, Any]:
    """One function in the notation that chat templates expect; a bare function is put into it."""
    tool = value if isinstance(value, dict) else {}
    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        raise row.error(f"field '{place}' is no function with a name", _TOOLS_REMEDY, kind="WrongType", field=place)
    _check_unicode(row, tool, place)
    return tool if "function" in tool else {"type": "function", "function": function}


def lists_tools(message: Message) -> bool:
    """Whether a turn lists the row's tools in its own text, as Hermes does."""
    return message.role == "system" and "<tools>" in message.content


def parse_options(row: Row) -> Mapping[str, Any]:
    """The row's optional `chat_template_kwargs`: an object, or its JSON text.

    Raises:
        RowError: it is no object, or sets a variable of the trainer.
    """
    field = "chat_template_kwargs"
    values = row.values.get(field)
    if values in (None, "", {}):
        return {}
    values = _json(row, values, field)
    if not isinstance(values, dict):
        problem = f"field '{field}' must be an object but is {type_name(values)}"
        remedy = 'Write it like {"enable_thinking": false}, or leave it out.'
        raise row.error(problem, remedy, kind="WrongType", field=field)
    for name in values:
        if name in RESERVED_OPTIONS or not name.isidentifier():
            place = f"{field}.{name[:40]}"
            problem, remedy = f"field '{place}' cannot be set by a row", "Remove it."
            raise row.error(problem, remedy, kind="WrongValue", field=place)
    _check_unicode(row, values, field)
    return values


def parse_calls(row: Row, turn: Mapping[str, Any], place: str) -> tuple[ToolCall, ...]:
    """The calls of an answer: `tool_calls`, a list or its JSON text, or the older `function_call`.

    Raises:
        RowError: they are no calls with a name and arguments.
    """
    old, values = turn.get("function_call"), turn.get("tool_calls")
    if values in (None, "", []):
        return () if old in (None, "", {}) else (_call(row, old, f"{place}.function_call"),)
    return calls_of(row, values, f"{place}.tool_calls")


def calls_of(row: Row, value: object, field: str) -> tuple[ToolCall, ...]:
    """The calls in `value`: an object, a list, or the JSON text of either; at least one.

    Raises:
        RowError: they are no calls with a name and arguments.
    """
    values = _json(row, value, field)
    calls = values if isinstance(values, list) else [values]
    if not calls:
        raise row.error(f"field '{field}' has no call", _CALL_REMEDY, kind="WrongType", field=field)
    return tuple(_call(row, call, f"{field}[{number}]") for number, call in enumerate(calls))


_CALL_REMEDY = 'Write a call like {"type": "function", "function": {"name": "...", "arguments": {...}}}.'


def _call(row: Row, value: object, place: str) -> ToolCall:
    call = value if isinstance(value, dict) else {}
    function = call.get("function", call)
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        raise row.error(f"field '{place}' is no call with a name", _CALL_REMEDY, kind="WrongType", field=place)
    given: object = next(
        (function[key] for key in ("arguments", "parameters") if function.get(key) not in (None, "")), {}
    )
    arguments = _json(row, given, f"{place}.arguments")
    if not isinstance(arguments, dict):
        problem = f"field '{place}.arguments' must be an object but is {type_name(arguments)}"
        raise row.error(problem, _CALL_REMEDY, kind="WrongType", field=f"{place}.arguments")
    row.checked_text(name, f"{place}.name")
    _check_unicode(row, arguments, f"{place}.arguments")
    identity = call.get("id")
    return ToolCall(name, arguments, row.checked_text(identity, f"{place}.id") if identity is not None else "")


def _json(row: Row, value: object, field: str) -> Any:
    """A value, parsed if it is a JSON text.

    Raises:
        RowError: it is a text that is not JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        remedy = f"Write '{field}' as JSON, or as the object itself."
        raise row.error(f"field '{field}' is a text that is not JSON", remedy, kind="NotJson", field=field) from error


def _check_unicode(row: Row, value: object, field: str) -> None:
    """Refuse texts that UTF-8 cannot encode, anywhere in a value."""
    row.checked_text(json.dumps(value, ensure_ascii=False, default=str), field)


def write_calls(calls: Sequence[ToolCall]) -> list[dict[str, object]]:
    """Calls in OpenAI's notation: arguments are JSON text."""
    return [{**({"id": call.id} if call.id else {}), "type": "function", "function": _function(call)} for call in calls]


def _function(call: ToolCall) -> dict[str, object]:
    return {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)}
