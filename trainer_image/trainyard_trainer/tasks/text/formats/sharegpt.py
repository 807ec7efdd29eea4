"""Rows like {"conversations": [{"from": "human", "value": "..."}, ...], "system": "...", "tools": "[...]"}."""

from __future__ import annotations

import json
from collections.abc import Mapping

from trainyard_trainer.data.rows import Row
from trainyard_trainer.tasks.text.formats.conversation import turns_conversation, write_row_fields
from trainyard_trainer.tasks.text.formats.example import Example, Message, Role
from trainyard_trainer.tasks.text.formats.row_format import CONVERSATION_FIELDS, NESTED_FIELDS, RowFormat, Target
from trainyard_trainer.tasks.text.formats.turn import (
    FUNCTION_CALL,
    TurnNames,
    turn_schema,
    write_function_call,
    write_turn,
)

_SPEAKERS: Mapping[Role, str] = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}
_NAMES = TurnNames(
    turns="conversations",
    role="from",
    content="value",
    other_role="role",
    other_content="content",
    roles=("system", "human", "gpt", "function_call", "observation", "user", "assistant", "tool"),
)


def parse(row: Row) -> Example:
    """The conversation of a row.

    Raises:
        RowError: a turn is not an object with a known speaker and a text, or the turns make no conversation.
    """
    return turns_conversation(row, _NAMES)


def write(_row: Row, example: Example) -> dict[str, object]:
    """The conversation as a list of turns; tools are JSON text, as other programs expect."""
    fields = write_row_fields(example)
    if "tools" in fields:
        fields["tools"] = json.dumps(fields["tools"], ensure_ascii=False)
    return {"conversations": [_turn(message) for message in example.messages], **fields}


def _turn(message: Message) -> dict[str, object]:
    """One turn; calls alone make a `function_call` turn, others are beside the text."""
    has_only_calls = not (message.content or message.reasoning or any(call.id for call in message.tool_calls))
    if message.tool_calls and has_only_calls:
        bare = Message("assistant", write_function_call(message), message.loss, name=message.name)
        return write_turn(bare, _NAMES, FUNCTION_CALL)
    return write_turn(message, _NAMES, _SPEAKERS[message.role])


FORMAT = RowFormat(
    name="sharegpt",
    required=("conversations",),
    optional=CONVERSATION_FIELDS,
    nested=("conversations", *NESTED_FIELDS),
    turns="conversations",
    interpret=parse,
    target=Target(write=write, schema={"conversations": [turn_schema(_NAMES)]}),
)
