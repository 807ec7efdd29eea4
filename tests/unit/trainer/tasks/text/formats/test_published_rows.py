"""Rows as other programs publish them: every field is used, refused, or named as ignored."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard_trainer.data.rows import Row
from trainyard_trainer.errors import RowError
from trainyard_trainer.tasks.text.convert import TARGETS, convert
from trainyard_trainer.tasks.text.formats.detect import detect
from trainyard_trainer.tasks.text.formats.example import Example, Message, ToolCall
from trainyard_trainer.tasks.text.formats.registry import FORMATS

WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
QUESTION = Message("user", "Is it warm in Porto?")
CALL = Message("assistant", "", tool_calls=(ToolCall("weather", {"city": "Porto"}),))
RESULT = Message("tool", '{"celsius": 31}')
ANSWER = Message("assistant", "Yes, 31 degrees.")


def parse(**values: Any) -> Example:
    row = Row("rows.jsonl", 1, json.loads(json.dumps(values)))
    return FORMATS[detect([row])].parse(row)


def turn(role: str, content: Any = None, **fields: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **fields}


def said(speaker: str, value: str, **fields: Any) -> dict[str, Any]:
    return {"from": speaker, "value": value, **fields}


CALLS = [{"id": "call_7", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Porto"}'}}]
HERMES_TOOLS = "You call functions. <tools>" + json.dumps(WEATHER) + "</tools>"
HERMES_CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Porto"}}\n</tool_call>'
WITH_IDS = (
    QUESTION,
    Message("assistant", "", tool_calls=(ToolCall("weather", {"city": "Porto"}, "call_7"),)),
    Message("tool", '{"celsius": 31}', tool_call_id="call_7"),
    ANSWER,
)
ROWS: Mapping[str, tuple[dict[str, Any], Example]] = {
    "OpenAI, tools": (
        {
            "messages": [
                turn("user", "Is it warm in Porto?"),
                turn("assistant", tool_calls=CALLS),
                turn("tool", '{"celsius": 31}', tool_call_id="call_7"),
                turn("assistant", "Yes, 31 degrees."),
            ],
            "tools": [WEATHER],
            "parallel_tool_calls": False,
        },
        Example(messages=WITH_IDS, tools=(WEATHER,)),
    ),
    "OpenAI, functions": (
        {
            "messages": [
                turn("user", "Is it warm in Porto?"),
                turn("assistant", function_call={"name": "weather", "arguments": '{"city": "Porto"}'}),
                turn("function", '{"celsius": 31}', name="weather"),
                turn("assistant", "Yes, 31 degrees."),
            ],
            "functions": [WEATHER["function"]],
        },
        Example(
            messages=(QUESTION, CALL, Message("tool", '{"celsius": 31}', name="weather"), ANSWER), tools=(WEATHER,)
        ),
    ),
    "OpenAI, weights, parts, developer and refusal": (
        {
            "messages": [
                turn("developer", "Be kind."),
                turn("user", [{"type": "text", "text": "Is it warm "}, {"type": "text", "text": "in Porto?"}]),
                turn("assistant", "No.", weight=0),
                turn("user", "How do I pick a lock?", name="Ana"),
                turn("assistant", None, refusal="I will not say.", weight=1),
            ]
        },
        Example(
            messages=(
                Message("system", "Be kind."),
                QUESTION,
                Message("assistant", "No.", loss=False),
                Message("user", "How do I pick a lock?", name="Ana"),
                Message("assistant", "I will not say."),
            )
        ),
    ),
    "Axolotl, train": (
        {
            "messages": [
                turn("user", "Is it warm in Porto?", train=False),
                turn("assistant", "No.", train=False),
                turn("user", "Sure?", train=False),
                turn("assistant", "Yes, 31 degrees.", train=True),
            ]
        },
        Example(
            messages=(
                Message("user", "Is it warm in Porto?", loss=False),
                Message("assistant", "No.", loss=False),
                Message("user", "Sure?", loss=False),
                ANSWER,
            )
        ),
    ),
    "TRL, tools as text and template variables": (
        {
            "messages": [turn("user", "Is it warm in Porto?"), turn("assistant", "Yes, 31 degrees.")],
            "tools": json.dumps([WEATHER]),
            "chat_template_kwargs": {"enable_thinking": False},
        },
        Example(messages=(QUESTION, ANSWER), tools=(WEATHER,), template_options={"enable_thinking": False}),
    ),
    "reasoning": (
        {
            "system": "Be kind.",
            "messages": [
                turn("user", "Is it warm in Porto?"),
                turn("assistant", "Yes, 31 degrees.", reasoning_content="It is August."),
                turn("user", "Sure?"),
                turn("assistant", "Yes.", thinking="It was."),
                turn("user", "Really?"),
                turn("assistant", [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Yes."}]),
            ],
        },
        Example(
            messages=(
                Message("system", "Be kind."),
                QUESTION,
                Message("assistant", "Yes, 31 degrees.", reasoning="It is August."),
                Message("user", "Sure?"),
                Message("assistant", "Yes.", reasoning="It was."),
                Message("user", "Really?"),
                Message("assistant", "Yes.", reasoning="Hm."),
            )
        ),
    ),
    "ShareGPT, function_call and observation": (
        {
            "conversations": [
                said("human", "Is it warm in Porto?"),
                said("function_call", '{"name": "weather", "arguments": {"city": "Porto"}}'),
                said("observation", '{"celsius": 31}'),
                said("gpt", "Yes, 31 degrees."),
            ],
            "system": "Be kind.",
            "tools": json.dumps([WEATHER["function"]]),
        },
        Example(messages=(Message("system", "Be kind."), QUESTION, CALL, RESULT, ANSWER), tools=(WEATHER,)),
    ),
    "ShareGPT, reasoning before calls": (
        {
            "conversations": [
                said("human", "Is it warm in Porto?"),
                said("function_call", '<think>\nAsk.\n</think>\n[{"name": "weather", "arguments": {"city": "Porto"}}]'),
                said("observation", '{"celsius": 31}'),
                said("gpt", "Yes, 31 degrees.", weight=1),
            ]
        },
        Example(
            messages=(
                QUESTION,
                Message("assistant", "", reasoning="Ask.", tool_calls=CALL.tool_calls),
                RESULT,
                ANSWER,
            )
        ),
    ),
    "ShareGPT with role and content": (
        {"conversations": [turn("user", "Is it warm in Porto?"), turn("assistant", "Yes, 31 degrees.")]},
        Example(messages=(QUESTION, ANSWER)),
    ),
    "messages with from and value": (
        {"messages": [said("human", "Is it warm in Porto?"), said("gpt", "Yes, 31 degrees.")]},
        Example(messages=(QUESTION, ANSWER)),
    ),
    "Hermes": (
        {
            "conversations": [
                said("system", HERMES_TOOLS),
                said("human", "Is it warm in Porto?"),
                said("gpt", HERMES_CALL),
                said(
                    "tool",
                    '<tool_response>\n{"celsius": 31}\n</tool_response>\n<tool_response>\nsunny\n</tool_response>\n',
                ),
                said("gpt", "Yes, 31 degrees."),
            ],
            "tools": json.dumps([WEATHER]),
        },
        Example(
            messages=(
                Message("system", HERMES_TOOLS),
                QUESTION,
                Message("assistant", HERMES_CALL),
                RESULT,
                Message("tool", "sunny"),
                ANSWER,
            )
        ),
    ),
    "Alpaca, history, system and tools": (
        {
            "instruction": "Sure?",
            "input": "",
            "output": "Yes, 31 degrees.",
            "history": [["Is it warm in Porto?", "Yes."]],
            "system": "Be kind.",
            "tools": [WEATHER["function"]],
        },
        Example(
            messages=(
                Message("system", "Be kind."),
                QUESTION,
                Message("assistant", "Yes."),
                Message("user", "Sure?"),
                ANSWER,
            ),
            tools=(WEATHER,),
        ),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_every_field_of_a_published_row_is_used(name: str) -> None:
    values, wanted = ROWS[name]
    found = parse(**values)
    assert found == wanted
    assert found.ignored == ()


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("target", ["messages", "sharegpt"])
def test_conversion_keeps_everything_a_published_row_says(name: str, target: Any) -> None:
    _, wanted = ROWS[name]
    values = convert(Row("rows.jsonl", 1, {}), wanted, target)
    assert parse(**values) == wanted


def test_calls_are_converted_to_the_notation_of_the_target() -> None:
    example = Example(messages=(QUESTION, CALL, RESULT, ANSWER), tools=(WEATHER,))
    openai = convert(Row("rows.jsonl", 1, {}), example, "messages")
    assert openai["tools"] == [WEATHER]
    function = {"name": "weather", "arguments": '{"city": "Porto"}'}
    assert openai["messages"][1]["tool_calls"] == [{"type": "function", "function": function}]  # type: ignore[index]
    sharegpt = convert(Row("rows.jsonl", 1, {}), example, "sharegpt")
    assert json.loads(sharegpt["tools"]) == [WEATHER]  # type: ignore[arg-type]
    speakers = [turn["from"] for turn in sharegpt["conversations"]]  # type: ignore[attr-defined]
    assert speakers == ["human", "function_call", "observation", "gpt"]


def test_a_row_with_calls_does_not_become_an_alpaca_row() -> None:
    for messages in ((QUESTION, CALL, RESULT, ANSWER), (QUESTION, Message("assistant", "Yes.", reasoning="Hm."))):
        with pytest.raises(RowError, match="has tool calls, reasoning or a name"):
            convert(Row("rows.jsonl", 1, {}), Example(messages=messages), "alpaca")


def test_fields_without_effect_are_named() -> None:
    messages = [turn("user", "Hi", created=7, weigth=0), turn("assistant", "Hello", audio=None, id="a")]
    found = parse(messages=messages, source="web", score=0.5, note=None, tags=[])
    assert found.ignored == ("messages[].created", "messages[].id", "messages[].weigth", "source", "score")
    assert parse(text="Hi", meta={"a": 1}).ignored == ("meta",)
    assert parse(input_ids=[1, 2], text="Hi").ignored == ("text",)


def test_images_are_refused() -> None:
    messages = [turn("user", "Hi"), turn("assistant", "Hello")]
    assert parse(messages=messages, images=[]).ignored == ()
    with pytest.raises(RowError, match="field 'images' has a value, but the task llm trains on text only"):
        parse(messages=messages, images=["cat.png"])


def test_equal_rows_have_equal_digests_in_every_notation() -> None:
    digests = {
        parse(**ROWS[name][0]).digest for name in ("ShareGPT with role and content", "messages with from and value")
    }
    assert len(digests) == 1
    call = Example(messages=(QUESTION, CALL, RESULT, ANSWER))
    others = [
        Example(messages=call.messages, tools=(WEATHER,)),
        Example(messages=(QUESTION, Message("assistant", "", tool_calls=(ToolCall("x", {}),)), RESULT, ANSWER)),
        Example(messages=(QUESTION, CALL, RESULT, Message("assistant", ANSWER.content, reasoning="Hm."))),
    ]
    assert len({call.digest, *(other.digest for other in others)}) == 4


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
arguments = st.dictionaries(texts, st.none() | st.booleans() | st.integers() | texts | st.lists(texts, max_size=2))
calls = st.lists(st.builds(ToolCall, texts.filter(bool), arguments, st.sampled_from(["", "call_1"])), max_size=2).map(
    tuple
)
answers = st.builds(
    Message, st.just("assistant"), texts.filter(bool), st.booleans(), reasoning=texts, tool_calls=calls, name=texts
)
results = st.builds(
    Message, st.just("tool"), texts.filter(lambda text: "<" not in text), tool_call_id=texts, name=texts
)
tools = st.lists(st.just(WEATHER), max_size=2).map(tuple)


@given(st.lists(answers | results, max_size=4), tools, st.sampled_from(["messages", "sharegpt"]))
def test_any_tool_row_survives_conversion(turns: list[Message], offered: Any, target: Any) -> None:
    example = Example(messages=(QUESTION, *turns, CALL, RESULT, ANSWER), tools=offered)
    assert target in TARGETS
    assert parse(**convert(Row("rows.jsonl", 1, {}), example, target)) == example
