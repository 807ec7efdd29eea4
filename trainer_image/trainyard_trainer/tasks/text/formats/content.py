"""The text of a turn: a string, or a list of parts."""

from __future__ import annotations

import re
from typing import Any

from trainyard_trainer.data.rows import Row, type_name

_TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
_REASONING_PARTS = ("thinking", "reasoning")
_TOOL_RESPONSE = re.compile(r"\s*<tool_response>\s*(.*?)\s*</tool_response>\s*", re.DOTALL)


def parse_content(row: Row, value: object, field: str) -> tuple[str, str]:
    """The content and the reasoning of a turn; texts of several parts follow one another without a separator.

    Raises:
        RowError: it is neither a text nor a list of parts of text.
    """
    if not isinstance(value, list):
        return row.checked_text(value, field), ""
    content: list[str] = []
    reasoning: list[str] = []
    for number, part in enumerate(value):
        place = f"{field}[{number}]"
        is_reasoning, text = _part(row, part, place)
        (reasoning if is_reasoning else content).append(text)
    return "".join(content), "".join(reasoning)


def _part(row: Row, part: object, place: str) -> tuple[bool, str]:
    """Whether a part is reasoning, and its text."""
    if isinstance(part, str):
        return False, row.checked_text(part, place)
    if not isinstance(part, dict):
        problem = f"field '{place}' must be an object but is {type_name(part)}"
        remedy = 'Write every part like {"type": "text", "text": "..."}.'
        raise row.error(problem, remedy, kind="WrongType", field=place)
    kind: Any = part.get("type") or "text"
    if kind in _REASONING_PARTS:
        return True, _text_of(row, part, (*_REASONING_PARTS, "text"), place)
    if kind in _TEXT_PARTS:
        return False, _text_of(row, part, ("text", "refusal"), place)
    name = f"'{kind[:40]}'" if isinstance(kind, str) else type_name(kind)
    problem = f"field '{place}' is a part of type {name}, which the task llm does not train on"
    raise row.error(problem, "Keep the parts of text, or remove the row.", kind="UnknownPart", field=place)


def _text_of(row: Row, part: dict[str, object], fields: tuple[str, ...], place: str) -> str:
    field = next((field for field in fields if part.get(field) is not None), "text")
    return row.checked_text(part.get(field), f"{place}.{field}")


def tool_responses(content: str) -> list[str]:
    """The results in the content of a tool turn, without <tool_response> tags: the chat template writes its own."""
    if "<tool_response>" not in content:
        return [content]
    found, at = [], 0
    while match := _TOOL_RESPONSE.match(content, at):
        found += tool_responses(match[1])
        at = match.end()
    return found if found and at == len(content) else [content]
