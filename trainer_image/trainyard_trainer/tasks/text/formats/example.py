"""What every row becomes, and the checks all formats share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from trainyard_trainer.errors import RowError

Role = Literal["system", "user", "assistant"]
TrainOn = Literal["completions", "all"]
TRAIN_ON: Mapping[str, TrainOn] = {name: name for name in get_args(TrainOn)}


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; an answer with `loss` false is read but not learnt."""

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
    """The row's own `trainOn`, which goes before spec.llm.trainOn."""

    @property
    def digest(self) -> bytes:
        """SHA-256 of the content: rows that say the same have the same digest whatever format they came in.

        What carries loss is not content: the same words on both sides of a split would be a leak all the same.
        """
        document: list[object] = [self.text, [[message.role, message.content] for message in self.messages]]
        if self.tokens:
            document.append(self.tokens)
        return hashlib.sha256(json.dumps(document, separators=(",", ":")).encode()).digest()

    @property
    def prompt_digest(self) -> bytes:
        """SHA-256 of what is asked: all turns before the first answer; of the whole content where nothing is asked."""
        first = next((at for at, message in enumerate(self.messages) if message.role == "assistant"), 0)
        return Example(messages=self.messages[:first]).digest if first else self.digest


@dataclass(frozen=True)
class Row:
    """One row of a file and where it stands, so that every error can say so."""

    file: str
    line: int
    """Number from 1, as the file's kind counts: lines of JSON Lines, elements of an array, rows of a table."""
    values: Mapping[str, Any]

    def error(self, problem: str, remedy: str, *, kind: str, field: str | None = None) -> RowError:
        """The error for this row."""
        return RowError(problem, remedy, file=self.file, row=self.line, kind=kind, field=field)

    def text(self, field: str, *, optional: bool = False) -> str:
        """The string in `field`; "" when it is optional and absent or null.

        Raises:
            RowError: the field is missing, not a string, or not valid Unicode.
        """
        value = self.values.get(field)
        if value is None and optional:
            return ""
        if value is None:
            raise self.error(
                f"field '{field}' is missing", f"Give every row a text in '{field}'.", kind="MissingField", field=field
            )
        return self.checked_text(value, field)

    def checked_text(self, value: object, field: str) -> str:
        """`value` when it is a string that UTF-8 can carry.

        Raises:
            RowError: it is not.
        """
        if not isinstance(value, str):
            raise self.error(
                f"field '{field}' must be text but is {kind_of(value)}",
                f"Write '{field}' as a string.",
                kind="WrongType",
                field=field,
            )
        try:
            value.encode()
        except UnicodeEncodeError as error:
            remedy = "Write the character itself, or both halves of its \\uXXXX\\uXXXX escape."
            raise self.error(
                f"field '{field}' has half of a surrogate pair", remedy, kind="NotUnicode", field=field
            ) from error
        return value

    def objects(self, field: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Number (from 0) and value of each object in the list `field`.

        Raises:
            RowError: the field is not a list of objects.
        """
        turns = self.values.get(field)
        if not isinstance(turns, list):
            found = "is missing" if turns is None else f"must be a list but is {kind_of(turns)}"
            kind = "MissingField" if turns is None else "WrongType"
            raise self.error(f"field '{field}' {found}", f"Write '{field}' as a list of turns.", kind=kind, field=field)
        for number, turn in enumerate(turns):
            if not isinstance(turn, dict):
                problem = f"field '{field}[{number}]' must be an object but is {kind_of(turn)}"
                raise self.error(
                    problem,
                    f"Write every turn of '{field}' as a JSON object.",
                    kind="WrongType",
                    field=f"{field}[{number}]",
                )
            yield number, turn

    def conversation(self, messages: Sequence[Message]) -> Example:
        """The conversation of this row.

        Raises:
            RowError: no answer, an empty answer, or a system turn that is not the first.
        """
        if not any(message.role == "assistant" for message in messages):
            raise self.error(
                "the conversation has no answer", "Give it an assistant turn, or remove the row.", kind="NoAnswer"
            )
        for number, message in enumerate(messages):
            if message.role == "system" and number > 0:
                twice = messages[0].role == "system"
                problem = "there are two system turns" if twice else f"turn {number + 1} is a system turn"
                raise self.error(problem, "Write one system turn, as the first turn.", kind="SystemTurn")
            if message.role == "assistant" and not message.content:
                raise self.error(
                    f"the answer in turn {number + 1} is empty",
                    "Write the answer, or remove the row.",
                    kind="EmptyAnswer",
                )
        if not any(message.role == "assistant" and message.loss for message in messages):
            remedy = "Let one answer carry loss, or remove the row."
            raise self.error("every answer has loss: false", remedy, kind="NothingToLearn")
        return Example(messages=tuple(messages), train_on=self.train_on())

    def train_on(self) -> TrainOn | None:
        """The row's optional `trainOn`.

        Raises:
            RowError: it is neither completions nor all.
        """
        value = self.values.get("trainOn")
        if value is None or value == "":
            return None
        if isinstance(value, str) and value in TRAIN_ON:
            return TRAIN_ON[value]
        found = f"'{value[:40]}'" if isinstance(value, str) else kind_of(value)
        remedy = f"Use one of {', '.join(TRAIN_ON)}, or leave it out."
        raise self.error(f"field 'trainOn' is {found}", remedy, kind="WrongValue", field="trainOn")

    def loss_of(self, turn: Mapping[str, Any], role: Role, field: str) -> bool:
        """The optional `loss` of a turn: whether its answer is learnt.

        Raises:
            RowError: it is not true or false, or stands at a turn that is no answer.
        """
        value = turn.get("loss")
        if value is None:
            return True
        if not isinstance(value, bool):
            problem, remedy = f"field '{field}' is {kind_of(value)}", "Write true or false, without quotes."
            raise self.error(problem, remedy, kind="WrongType", field=field)
        if role != "assistant":
            remedy = "Remove it: only answers are chosen so; trainOn: all learns every turn of a row."
            raise self.error(f"field '{field}' stands at a {role} turn", remedy, kind="WrongValue", field=field)
        return value

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
            RowError: it is not a list of pairs of texts.
        """
        pairs = self.values.get("history")
        if pairs is None:
            return []
        if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            problem = "field 'history' must be a list of [question, answer] pairs"
            raise self.error(
                problem,
                'Write it like [["first question", "its answer"]], or leave it out.',
                kind="WrongType",
                field="history",
            )
        return [(self.checked_text(asked, "history"), self.checked_text(said, "history")) for asked, said in pairs]


def kind_of(value: object) -> str:
    """How a user calls the type of a JSON value."""
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
