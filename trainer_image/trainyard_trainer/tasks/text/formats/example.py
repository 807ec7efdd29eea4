"""Training examples: what rows of every format are parsed into."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Role = Literal["system", "user", "assistant"]
TrainOn = Literal["completions", "all"]
TRAIN_ON: Mapping[str, TrainOn] = {name: name for name in get_args(TrainOn)}


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; an answer with `loss` false is context only."""

    role: Role
    content: str
    loss: bool = True


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

    @property
    def digest(self) -> bytes:
        """SHA-256 of the content, the same in every format.

        It excludes what carries loss: the same text on both sides of a split is a leak regardless.
        """
        document: list[object] = [self.text, [[message.role, message.content] for message in self.messages]]
        if self.tokens:
            document.append(self.tokens)
        return hashlib.sha256(json.dumps(document, separators=(",", ":")).encode()).digest()

    @property
    def prompt_digest(self) -> bytes:
        """SHA-256 of the turns before the first answer; of the whole content if there are none."""
        first = next((at for at, message in enumerate(self.messages) if message.role == "assistant"), 0)
        return Example(messages=self.messages[:first]).digest if first else self.digest
