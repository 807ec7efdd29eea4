"""Training examples: what rows of every format are parsed into."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Role = Literal["system", "user", "assistant", "tool"]
TrainOn = Literal["completions", "all"]
TRAIN_ON: Mapping[str, TrainOn] = {name: name for name in get_args(TrainOn)}


@dataclass(frozen=True)
class ToolCall:
    """One call of a function by an answer."""

    name: str
    arguments: Mapping[str, Any]
    id: str = ""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str
    loss: bool = True
    """False: an answer that is context only; at another turn, no loss with `trainOn: all` either."""
    reasoning: str = ""
    """The text that an answer thinks before its content."""
    tool_calls: tuple[ToolCall, ...] = ()
    """The calls of an answer."""
    tool_call_id: str = ""
    """The call that a tool turn answers."""
    name: str = ""
    """The function of a tool turn, or the name of another speaker."""

    @property
    def is_plain(self) -> bool:
        """Whether role and content say everything about the turn, except whether it carries loss."""
        return not (self.reasoning or self.tool_calls or self.tool_call_id or self.name)

    @property
    def document(self) -> list[object]:
        """The content as JSON values; a plain turn has no more than role and content."""
        if self.is_plain:
            return [self.role, self.content]
        calls = [[call.name, call.arguments, call.id] for call in self.tool_calls]
        return [self.role, self.content, self.reasoning, calls, self.tool_call_id, self.name]


@dataclass(frozen=True)
class Example:
    """One training row: a conversation, plain text, or tokens; the other two are empty."""

    messages: tuple[Message, ...] = ()
    text: str | None = None
    tokens: tuple[int, ...] = ()
    token_loss: tuple[bool, ...] = ()
    """Whether each of `tokens` carries loss."""
    train_on: TrainOn | None = None
    """The row's own `trainOn`, which overrides spec.llm.trainOn."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """The functions that a conversation may call, as JSON schemas: {"type": "function", "function": {...}}."""
    template_options: Mapping[str, Any] = field(default_factory=dict)
    """Variables for the chat template, for example {"enable_thinking": false}."""
    ignored: tuple[str, ...] = field(default=(), compare=False)
    """Fields of the row that training does not use, for example `messages[].created`."""

    @property
    def digest(self) -> bytes:
        """SHA-256 of the content, the same in every format.

        It excludes what carries loss: the same text on both sides of a split is a leak regardless.
        """
        document: list[object] = [self.text, [message.document for message in self.messages]]
        if self.tokens:
            document.append(self.tokens)
        if self.tools:
            document.append({"tools": self.tools})
        if self.template_options:
            document.append({"options": self.template_options})
        return hashlib.sha256(json.dumps(document, separators=(",", ":")).encode()).digest()

    @property
    def prompt_digest(self) -> bytes:
        """SHA-256 of the turns before the first answer; of the whole content if there are none."""
        first = next((at for at, message in enumerate(self.messages) if message.role == "assistant"), 0)
        return Example(messages=self.messages[:first], tools=self.tools).digest if first else self.digest
