"""Rendering of conversations with a tokenizer's chat template."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from typing import Any, Literal

from jinja2 import TemplateError

from trainyard_trainer.errors import ConfigurationError
from trainyard_trainer.tasks.text.formats.example import Example, Message, ToolCall

TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError)
"""Errors that a template raises, on purpose or by an expression."""
_GENERATION_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
_CLOCK = "strftime_now"
"""The function by which a template reads the date."""
_CLOCK_CALL = re.compile(r"strftime_now\(\s*([\"'])(.*?)\1\s*\)")
_SHORT_ID = re.compile(r"[A-Za-z0-9]{9}")
_PROBE = Example(messages=(Message("user", "question"), Message("assistant", "answer")))


@dataclass(frozen=True)
class Dialect:
    """What a template expects of tool calls; templates differ, and rows should not."""

    arguments_as_text: bool = False
    """Whether arguments are JSON text; objects otherwise."""
    empty_content: str | None = ""
    """The content of an answer that has only calls."""
    ids: Literal["optional", "required", "short"] = "optional"
    """Whether calls need ids; Mistral's templates require nine letters and digits."""


IDS: Sequence[Literal["optional", "required", "short"]] = ("optional", "required", "short")
_DIALECTS = tuple(
    Dialect(arguments_as_text=as_text, empty_content=empty, ids=ids)
    for ids in IDS
    for as_text in (False, True)
    for empty in ("", None)
)
"""In the order of preference."""


def reads_the_date(tokenizer: Any) -> bool:
    """Whether a chat template of a tokenizer writes the date into its text."""
    return _CLOCK in str(tokenizer.chat_template)


def _dated(template: str, today: date) -> str:
    """Return a template with a date in place of its calls of the clock: the library passes no functions to it."""
    return _CLOCK_CALL.sub(lambda call: json.dumps(today.strftime(call.group(2))), template)


class ChatTemplate:
    """The chat template of a tokenizer; it must have one."""

    def __init__(self, tokenizer: Any, model_name: str, today: date | None = None) -> None:
        self._tokenizer = tokenizer
        self._today = today
        self._variables = {key: value for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
        self.model_name = model_name
        self.text = self._text(has_tools=False)
        self._text_with_tools = self._text(has_tools=True)

    def _text(self, *, has_tools: bool) -> str:
        """The template's source; a model may have another one for rows with tools."""
        try:
            text = str(self._tokenizer.get_chat_template(tools=[{}] if has_tools else None))
        except TEMPLATE_ERRORS as error:
            raise self._unusable(error) from error
        return text if self._today is None else _dated(text, self._today)

    def check(self) -> None:
        """Render a question and an answer.

        Raises:
            ConfigurationError: the template does not work.
        """
        try:
            self.render(_PROBE)
        except TEMPLATE_ERRORS as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> ConfigurationError:
        problem = f"The chat template of {self.model_name} does not work: {error}"
        return ConfigurationError(problem, "Correct chat_template.jinja of the model.")

    def has_marks(self, example: Example) -> bool:
        """Whether the template marks answers with {% generation %}."""
        return bool(_GENERATION_MARK.search(self._source(example)))

    def _source(self, example: Example) -> str:
        return self._text_with_tools if example.tools else self.text

    def render(self, example: Example, *, generation_prompt: bool = False) -> str:
        """A conversation as text; raises `TEMPLATE_ERRORS`."""
        return self._render(example, self._dialect_of(example), generation_prompt=generation_prompt)[0]

    def render_marked(self, example: Example) -> tuple[str, list[tuple[int, int]]]:
        """A conversation as text, and its answers by the template's marks; raises `TEMPLATE_ERRORS`."""
        return self._render(example, self._dialect_of(example), marked=True)

    def _render(
        self, example: Example, dialect: Dialect, *, generation_prompt: bool = False, marked: bool = False
    ) -> tuple[str, list[tuple[int, int]]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        texts, spans = render_jinja_template(
            conversations=[turns_of(example.messages, dialect)],
            tools=list(example.tools) or None,
            chat_template=self._source(example),
            return_assistant_tokens_mask=marked,
            add_generation_prompt=generation_prompt,
            **{**self._variables, **example.template_options},
        )
        return str(texts[0]), [(int(begin), int(end)) for begin, end in spans[0]] if marked else []

    def _dialect_of(self, example: Example) -> Dialect:
        return self._dialect if any(message.tool_calls for message in example.messages) else _DIALECTS[0]

    @cached_property
    def _dialect(self) -> Dialect:
        """The first dialect in which a call with its result renders completely; the first of all if none does."""
        return next((one for one in _DIALECTS if self._renders_calls(one)), _DIALECTS[0])

    @cached_property
    def renders_tools(self) -> bool:
        """Whether the tools of a row are in its text."""
        text = self._text_without_calls
        return not text or any(part in text for part in ("find_place", "Find a place."))

    @cached_property
    def _text_without_calls(self) -> str:
        """A row with tools and no call; "" if the template refuses it."""
        try:
            return self._render(replace(_PROBE, tools=CALL_PROBE.tools), _DIALECTS[0])[0]
        except TEMPLATE_ERRORS:
            return ""

    def _renders_calls(self, dialect: Dialect) -> bool:
        try:
            texts = [self._render(probe, dialect)[0] for probe in (CALL_PROBE, _CALL_PROBE_WITHOUT_IDS)]
        except TEMPLATE_ERRORS:
            return False
        text, without = texts[0], self._text_without_calls
        shows_python = any(text.count(part) > without.count(part) for part in _PYTHON_PARTS)
        return all(part in text for part in _CALL_PARTS) and not shows_python


_CALL_PARTS = ("find_place", "Lisbon", "it is sunny")
_PYTHON_PARTS = ("'city':", "None")
"""What shows that a template printed a Python value where it expected JSON text or no value."""
CALL_PROBE = Example(
    messages=(
        Message("user", "where"),
        Message("assistant", "", tool_calls=(ToolCall("find_place", {"city": "Lisbon"}, "call_a1b2c3d4"),)),
        Message("tool", "it is sunny", tool_call_id="call_a1b2c3d4", name="find_place"),
        Message("assistant", "there"),
    ),
    tools=(
        {
            "type": "function",
            "function": {
                "name": "find_place",
                "description": "Find a place.",
                "parameters": {
                    "type": "object",
                    "properties": {"city": {"type": "string", "description": "The city."}},
                    "required": ["city"],
                },
            },
        },
    ),
)
"""A row with a call, its result and an answer."""
_CALL_PROBE_WITHOUT_IDS = replace(
    CALL_PROBE,
    messages=tuple(
        replace(
            message, tool_calls=tuple(replace(call, id="") for call in message.tool_calls), tool_call_id="", name=""
        )
        for message in CALL_PROBE.messages
    ),
)


def turns_of(messages: Sequence[Message], dialect: Dialect) -> list[dict[str, Any]]:
    """The turns as a template reads them."""
    if dialect.ids != "optional":
        messages = list(_with_ids(messages, short=dialect.ids == "short"))
    return [_turn(message, dialect) for message in messages]


def _turn(message: Message, dialect: Dialect) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.is_plain:
        return turn
    if message.reasoning:
        turn["reasoning_content"] = message.reasoning
    if message.tool_calls:
        turn["content"] = message.content or dialect.empty_content
        turn["tool_calls"] = [_call(call, dialect) for call in message.tool_calls]
    if message.tool_call_id:
        turn["tool_call_id"] = message.tool_call_id
    if message.name:
        turn["name"] = message.name
    return turn


def _call(call: ToolCall, dialect: Dialect) -> dict[str, Any]:
    text = dialect.arguments_as_text
    arguments = json.dumps(call.arguments, ensure_ascii=False) if text else call.arguments
    found: dict[str, Any] = {"type": "function", "function": {"name": call.name, "arguments": arguments}}
    return {**found, "id": call.id} if call.id else found


def _with_ids(messages: Sequence[Message], *, short: bool) -> Iterator[Message]:
    """Give every call an id, and every result that of its call; `short`: an id of nine letters and digits."""
    names: dict[str, str] = {}
    pending: list[str] = []
    count = 0
    for message in messages:
        calls = []
        for call in message.tool_calls:
            fits = bool(_SHORT_ID.fullmatch(call.id)) if short else bool(call.id)
            identity = call.id if fits else f"{count:09d}"
            count += 1
            names[call.id] = identity
            pending.append(identity)
            calls.append(replace(call, id=identity))
        if calls:
            yield replace(message, tool_calls=tuple(calls))
        elif message.role == "tool":
            known = names.get(message.tool_call_id) if message.tool_call_id else None
            identity = known or (pending[0] if pending else f"{count:09d}")
            if identity in pending:
                pending.remove(identity)
            yield replace(message, tool_call_id=identity)
        else:
            yield message
