"""Rows of one format written as rows of another; what is read back says the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, get_args

from trainyard_trainer.tasks.text.formats.example import Example, Message, Row

Target = Literal["messages", "sharegpt", "alpaca", "query-response"]
TARGETS: Mapping[str, Target] = {name: name for name in get_args(Target)}
_SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}


def convert(row: Row, example: Example, target: Target) -> dict[str, object]:
    """The row as an object of format `target`; fields that say nothing to training are left behind.

    Raises:
        RowError: the format cannot say what the row says.
    """
    if not example.messages:
        what = "tokens" if example.tokens else "text"
        problem = f"it is a row of {what}, which no conversation can be made from"
        raise row.error(problem, "Leave it as it is.", kind="NotConvertible")
    values = _WRITERS[target](row, example)
    return values if example.train_on is None else {**values, "trainOn": example.train_on}


def _messages(_row: Row, example: Example) -> dict[str, object]:
    return {"messages": [_turn(message, "role", message.role, "content") for message in example.messages]}


def _sharegpt(_row: Row, example: Example) -> dict[str, object]:
    turns = [_turn(message, "from", _SPEAKERS[message.role], "value") for message in example.messages]
    return {"conversations": turns}


def _turn(message: Message, role_field: str, role: str, content_field: str) -> dict[str, object]:
    turn: dict[str, object] = {role_field: role, content_field: message.content}
    return turn if message.loss else {**turn, "loss": False}


def _alpaca(row: Row, example: Example) -> dict[str, object]:
    return _pairs(row, example, "instruction", "output")


def _query_response(row: Row, example: Example) -> dict[str, object]:
    return _pairs(row, example, "query", "response")


def _pairs(row: Row, example: Example, question: str, answer: str) -> dict[str, object]:
    """Questions and answers by turns, after at most one system turn."""
    turns = list(example.messages)
    system = turns.pop(0).content if turns[0].role == "system" else ""
    if [turn.role for turn in turns] != ["user", "assistant"] * (len(turns) // 2):
        problem, remedy = "its questions and answers do not take turns", "Convert to messages or sharegpt."
        raise row.error(problem, remedy, kind="NotConvertible")
    if not all(turn.loss for turn in turns):
        problem, remedy = "an answer has loss: false", "Convert to messages or sharegpt, which can say so."
        raise row.error(problem, remedy, kind="NotConvertible")
    *earlier, (asked, said) = [(turns[at].content, turns[at + 1].content) for at in range(0, len(turns), 2)]
    values: dict[str, object] = {question: asked, answer: said}
    if earlier:
        values["history"] = [list(pair) for pair in earlier]
    return {**values, "system": system} if system else values


_WRITERS: Mapping[Target, Callable[[Row, Example], dict[str, object]]] = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "query-response": _query_response,
}
