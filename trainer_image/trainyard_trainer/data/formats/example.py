"""What every row becomes, and the checks all formats share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trainyard_trainer.errors import DataError

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Example:
    """One training row: a conversation, or plain text (then `messages` is empty)."""

    messages: tuple[Message, ...] = ()
    text: str | None = None

    @property
    def digest(self) -> bytes:
        """SHA-256 of the content: rows that say the same have the same digest whatever format they came in."""
        document = [self.text, [[message.role, message.content] for message in self.messages]]
        return hashlib.sha256(json.dumps(document, separators=(",", ":")).encode()).digest()


@dataclass(frozen=True)
class Row:
    """One JSON object of a file and where it stands, so that every error can say so."""

    file: str
    line: int
    values: Mapping[str, Any]

    def error(self, problem: str, remedy: str) -> DataError:
        """The error for this row."""
        return DataError(f"{self.file}, row {self.line}: {problem}.", remedy)

    def text(self, field: str, *, optional: bool = False) -> str:
        """The string in `field`; "" when it is optional and absent or null.

        Raises:
            DataError: the field is missing, not a string, or not valid Unicode.
        """
        value = self.values.get(field)
        if value is None and optional:
            return ""
        if value is None:
            raise self.error(f"field '{field}' is missing", f"Give every row a text in '{field}'.")
        return self.checked_text(value, field)

    def checked_text(self, value: object, field: str) -> str:
        """`value` when it is a string that UTF-8 can carry.

        Raises:
            DataError: it is not.
        """
        if not isinstance(value, str):
            raise self.error(f"field '{field}' must be text but is {kind_of(value)}", f"Write '{field}' as a string.")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            remedy = "Write the character itself, or both halves of its \\uXXXX\\uXXXX escape."
            raise self.error(f"field '{field}' has half of a surrogate pair", remedy) from error
        return value

    def objects(self, field: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Number (from 0) and value of each object in the list `field`.

        Raises:
            DataError: the field is not a list of objects.
        """
        turns = self.values.get(field)
        if not isinstance(turns, list):
            found = "is missing" if turns is None else f"must be a list but is {kind_of(turns)}"
            raise self.error(f"field '{field}' {found}", f"Write '{field}' as a list of turns.")
        for number, turn in enumerate(turns):
            if not isinstance(turn, dict):
                problem = f"field '{field}[{number}]' must be an object but is {kind_of(turn)}"
                raise self.error(problem, f"Write every turn of '{field}' as a JSON object.")
            yield number, turn

    def conversation(self, messages: Sequence[Message]) -> Example:
        """The conversation of this row.

        Raises:
            DataError: no answer, an empty answer, or a system turn that is not the first.
        """
        if not any(message.role == "assistant" for message in messages):
            raise self.error("the conversation has no answer", "Give it an assistant turn, or remove the row.")
        for number, message in enumerate(messages):
            if message.role == "system" and number > 0:
                twice = messages[0].role == "system"
                problem = "there are two system turns" if twice else f"turn {number + 1} is a system turn"
                raise self.error(problem, "Write one system turn, as the first turn.")
            if message.role == "assistant" and not message.content:
                raise self.error(f"the answer in turn {number + 1} is empty", "Write the answer, or remove the row.")
        return Example(messages=tuple(messages))

    def dialogue(self, pairs: Sequence[tuple[str, str]]) -> Example:
        """The conversation of (question, answer) pairs, after the row's optional `system` text."""
        system = self.text("system", optional=True)
        messages = [Message("system", system)] if system else []
        for question, answer in pairs:
            messages += [Message("user", question), Message("assistant", answer)]
        return self.conversation(messages)

    def history(self) -> list[tuple[str, str]]:
        """Earlier (question, answer) pairs from the optional field `history`.

        Raises:
            DataError: it is not a list of pairs of texts.
        """
        pairs = self.values.get("history")
        if pairs is None:
            return []
        if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            problem = "field 'history' must be a list of [question, answer] pairs"
            raise self.error(problem, 'Write it like [["first question", "its answer"]], or leave it out.')
        return [(self.checked_text(asked, "history"), self.checked_text(said, "history")) for asked, said in pairs]


def kind_of(value: object) -> str:
    """How a user calls the type of a JSON value."""
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
