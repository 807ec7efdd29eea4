"""Parsing, checks and writing shared by the conversation formats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainyard_trainer.data.rows import Row, type_name
from trainyard_trainer.tasks.text.formats.example import TRAIN_ON, Example, Message, TrainOn
from trainyard_trainer.tasks.text.formats.tools import lists_tools, parse_options, parse_tools
from trainyard_trainer.tasks.text.formats.turn import TurnNames, parse_turn, unused_fields


def conversation(row: Row, messages: Sequence[Message], ignored: Sequence[str] = ()) -> Example:
    """The conversation of a row, after its optional `system` text.

    Raises:
        RowError: no answer, an empty answer, or a system turn that is not the first.
    """
    system = row.text("system", optional=True)
    if system and (not messages or messages[0] != Message("system", system)):
        messages = [Message("system", system), *messages]
    _check(row, messages)
    tools = parse_tools(row)
    return Example(
        messages=tuple(messages),
        train_on=train_on(row),
        # A system turn in the style of Hermes lists the tools itself; the template would list them again.
        tools=() if tools and lists_tools(messages[0]) else tools,
        template_options=parse_options(row),
        ignored=tuple(ignored),
    )


def _check(row: Row, messages: Sequence[Message]) -> None:
    if not any(message.role == "assistant" for message in messages):
        remedy = "Give it an assistant turn, or remove the row."
        raise row.error("the conversation has no answer", remedy, kind="NoAnswer")
    for number, message in enumerate(messages):
        if message.role == "system" and number > 0:
            twice = messages[0].role == "system"
            problem = "there are two system turns" if twice else f"turn {number + 1} is a system turn"
            raise row.error(problem, "Write one system turn, as the first turn.", kind="SystemTurn")
        if message.role == "assistant" and not message.content and not message.tool_calls:
            problem, remedy = f"the answer in turn {number + 1} is empty", "Write the answer, or remove the row."
            raise row.error(problem, remedy, kind="EmptyAnswer")
    if not any(message.role == "assistant" and message.loss for message in messages):
        remedy = "Let one answer carry loss, or remove the row."
        raise row.error("every answer has loss: false", remedy, kind="NothingToLearn")


def dialogue(row: Row, pairs: Sequence[tuple[str, str]]) -> Example:
    """The conversation of (question, answer) pairs, after the row's optional `system` text."""
    messages = []
    for question, answer in pairs:
        messages += [Message("user", question), Message("assistant", answer)]
    return conversation(row, messages)


def turns_conversation(row: Row, names: TurnNames) -> Example:
    """The conversation of a row with a list of turns.

    Raises:
        RowError: a turn is not an object with a known role and a text, or the turns make no conversation.
    """
    messages: list[Message] = []
    ignored: set[str] = set()
    for number, turn in _turns(row, names.turns):
        messages += parse_turn(row, names, number, turn)
        ignored.update(f"{names.turns}[].{name}" for name in unused_fields(turn))
    return conversation(row, messages, sorted(ignored))


def _turns(row: Row, field: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Index and value of each turn in the list `field`.

    Raises:
        RowError: the field is not a list of objects.
    """
    values = row.values.get(field)
    if not isinstance(values, list):
        found = "is missing" if values is None else f"must be a list but is {type_name(values)}"
        kind = "MissingField" if values is None else "WrongType"
        raise row.error(f"field '{field}' {found}", f"Write '{field}' as a list of turns.", kind=kind, field=field)
    for number, turn in enumerate(values):
        if not isinstance(turn, dict):
            place = f"{field}[{number}]"
            problem = f"field '{place}' must be an object but is {type_name(turn)}"
            raise row.error(problem, f"Write every turn of '{field}' as a JSON object.", kind="WrongType", field=place)
        yield number, turn


def history(row: Row) -> list[tuple[str, str]]:
    """Earlier (question, answer) pairs from the optional field `history`.

    Raises:
        RowError: it is not a list of pairs of texts.
    """
    pairs = row.values.get("history")
    if pairs is None:
        return []
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        problem = "field 'history' must be a list of [question, answer] pairs"
        remedy = 'Write it like [["first question", "its answer"]], or leave it out.'
        raise row.error(problem, remedy, kind="WrongType", field="history")
    return [(row.checked_text(user, "history"), row.checked_text(answer, "history")) for user, answer in pairs]


def train_on(row: Row) -> TrainOn | None:
    """The row's optional `trainOn`.

    Raises:
        RowError: it is neither completions nor all.
    """
    value = row.values.get("trainOn")
    if value is None or value == "":
        return None
    if isinstance(value, str) and value in TRAIN_ON:
        return TRAIN_ON[value]
    found = f"'{value[:40]}'" if isinstance(value, str) else type_name(value)
    remedy = f"Use one of {', '.join(TRAIN_ON)}, or leave it out."
    raise row.error(f"field 'trainOn' is {found}", remedy, kind="WrongValue", field="trainOn")


def write_row_fields(example: Example) -> dict[str, object]:
    """The fields of a conversation beside its turns; those without a value are left out."""
    fields = {"tools": list(example.tools), "chat_template_kwargs": dict(example.template_options)}
    return {name: value for name, value in fields.items() if value}


def write_dialogue(row: Row, example: Example, question: str, answer: str) -> dict[str, object]:
    """A conversation as fields `question`, `answer`, `history` and `system`.

    Raises:
        RowError: its turns do not alternate, or one has what these fields cannot express.
    """
    remaining = list(example.messages)
    if not all(turn.is_plain for turn in remaining):
        problem = "a turn has tool calls, reasoning or a name"
        raise row.error(problem, "Convert to messages or sharegpt, which support it.", kind="NotConvertible")
    if not all(turn.loss for turn in remaining):
        problem, remedy = "a turn has loss: false", "Convert to messages or sharegpt, which support it."
        raise row.error(problem, remedy, kind="NotConvertible")
    system = remaining.pop(0).content if remaining[0].role == "system" else ""
    if [turn.role for turn in remaining] != ["user", "assistant"] * (len(remaining) // 2):
        problem, remedy = "its questions and answers do not alternate", "Convert to messages or sharegpt."
        raise row.error(problem, remedy, kind="NotConvertible")
    pairs = [(remaining[at].content, remaining[at + 1].content) for at in range(0, len(remaining), 2)]
    values: dict[str, object] = {question: pairs[-1][0], answer: pairs[-1][1]}
    if pairs[:-1]:
        values["history"] = [list(pair) for pair in pairs[:-1]]
    return {**values, **({"system": system} if system else {}), **write_row_fields(example)}
