import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainyard_crds.trainingjob_inputs import DatasetFormat
from trainyard_trainer.data.rows import Row
from trainyard_trainer.errors import DataError, NotFoundError
from trainyard_trainer.tasks.text.example_file import ExampleFile
from trainyard_trainer.tasks.text.formats.example import Example, Message
from trainyard_trainer.tasks.text.formats.registry import FORMATS

DIALOGUE = Example(messages=(Message("system", "Be kind."), Message("user", "Hi"), Message("assistant", "Hello")))
SAME_ROWS: dict[DatasetFormat, dict[str, Any]] = {
    "messages": {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
        ]
    },
    "sharegpt": {
        "conversations": [
            {"from": "system", "value": "Be kind."},
            {"from": "human", "value": "Hi"},
            {"from": "gpt", "value": "Hello"},
        ]
    },
    "alpaca": {"system": "Be kind.", "instruction": "Hi", "input": "", "output": "Hello"},
    "query-response": {"system": "Be kind.", "query": "Hi", "response": "Hello"},
}


def read(
    path: Path,
    content: bytes | str,
    format: DatasetFormat = "auto",  # noqa: A002
    max_rows: int | None = None,
) -> list[Example]:
    path = path / "rows.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    file = ExampleFile(path=path, name="pvc://data/rows.jsonl", format=format, max_rows=max_rows)
    return [example for _, example in file.examples()]


def read_rows(
    path: Path,
    *rows: object,
    format: DatasetFormat = "auto",  # noqa: A002
    max_rows: int | None = None,
) -> list[Example]:
    return read(path, "".join(json.dumps(row) + "\n" for row in rows), format, max_rows)


def test_registry_api_and_docs_have_the_same_formats() -> None:
    page = (Path(__file__).parents[5] / "docs/datasets.md").read_text()
    documented = re.findall(r"^\| `([a-z-]+)` \| `\{", page, re.MULTILINE)
    assert sorted(FORMATS) == sorted(documented) == sorted(set(get_args(DatasetFormat)) - {"auto"})
    assert f"There are {['five', 'six', 'seven', 'eight'][len(FORMATS) - 5]} row formats" in page


@pytest.mark.parametrize("name", SAME_ROWS)
def test_formats_parse_to_the_same_example(tmp_path: Path, name: DatasetFormat) -> None:
    assert read_rows(tmp_path, SAME_ROWS[name]) == [DIALOGUE]
    assert read_rows(tmp_path, SAME_ROWS[name], format=name) == [DIALOGUE]
    assert read_rows(tmp_path, SAME_ROWS[name])[0].digest == DIALOGUE.digest


def test_text_rows_and_alpaca_history(tmp_path: Path) -> None:
    assert read_rows(tmp_path, {"text": "Once."}) == [Example(text="Once.")]
    (example,) = read_rows(tmp_path, {"instruction": "Add", "input": "1 and 2", "output": "3"})
    assert example.messages[0].content == "Add\n\n1 and 2"
    (example,) = read_rows(tmp_path, {"query": "And 3?", "response": "4", "history": [["And 2?", "3"]]})
    assert [message.content for message in example.messages] == ["And 2?", "3", "And 3?", "4"]


def test_tokenized_rows_mark_tokens_with_loss(tmp_path: Path) -> None:
    def loss(row: object) -> tuple[bool, ...]:
        (example,) = read_rows(tmp_path, row)
        assert example.tokens == (5, 6, 7)
        return example.token_loss

    assert loss({"input_ids": [5, 6, 7], "text": "both"}) == (True, True, True)
    assert loss({"input_ids": [5, 6, 7], "labels": [-100, -100, 7]}) == (False, False, True)
    assert loss({"input_ids": [5, 6, 7], "loss_mask": [0, 1, 0]}) == (False, True, False)


def test_row_sets_its_loss(tmp_path: Path) -> None:
    turns: list[dict[str, object]] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "loss": False},
        {"role": "assistant", "content": "c"},
    ]
    (example,) = read_rows(tmp_path, {"messages": turns, "trainOn": "all"})
    assert example.train_on == "all"
    assert [message.loss for message in example.messages] == [True, False, True]
    plain = [{key: value for key, value in turn.items() if key != "loss"} for turn in turns]
    assert read_rows(tmp_path, {"messages": plain})[0].digest == example.digest
    for bad, problem in (
        ({**turns[1], "loss": "no"}, r"'messages\[1\].loss' is text"),
        ({"role": "user", "content": "x", "loss": True}, "is at a user turn"),
        ({**turns[1], "weight": 0.5}, r"'messages\[1\].weight' is 0.5"),
        ({**turns[1], "weight": 1}, r"'messages\[1\].weight' contradicts another field"),
        ({"role": "user", "content": "x", "train": "yes"}, r"'messages\[1\].train' is text"),
    ):
        with pytest.raises(DataError, match=problem):
            read_rows(tmp_path, {"messages": [turns[0], bad, turns[2]]})
    with pytest.raises(DataError, match="every answer has loss: false"):
        read_rows(tmp_path, {"messages": turns[:2]})


def test_blank_lines_and_byte_order_mark_are_ignored(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf\n{"text": "one"}\r\n\n  \n{"text": "two"}'
    assert [example.text for example in read(tmp_path, content)] == ["one", "two"]


def test_max_rows_counts_from_the_start(tmp_path: Path) -> None:
    rows = [{"text": str(number)} for number in range(5)]
    assert [example.text for example in read_rows(tmp_path, *rows, max_rows=2)] == ["0", "1"]


GOOD = json.dumps(SAME_ROWS["messages"])
BAD_LINES: dict[str, str | bytes] = {
    "not JSON at column 2": "{'text': 'x'}",
    "must be an object but is a list": "[1]",
    "byte 11 of the row is not UTF-8": b'{"text": "\xff"}',
    "its JSON has a number too long": '{"text": ' + "9" * 5000 + "}",
    "field 'messages' is missing": '{"text": "x"}',
    "field 'messages' must be a list but is text": '{"messages": "x"}',
    "'messages[0]' must be an object but is text": '{"messages": ["x"]}',
    "'messages[0].role' is 'bot', an unknown role": '{"messages": [{"role": "bot", "content": "x"}]}',
    "'messages[0].role' is null, an unknown role": '{"messages": [{"content": "x"}]}',
    "'messages[0].content' must be text but is an object": '{"messages": [{"role": "user", "content": {}}]}',
    "'messages[0].content[0]' is a part of type 'image_url'": (
        '{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}'
    ),
    "'messages[0].content[0]' must be an object but is a number": '{"messages": [{"role": "user", "content": [1]}]}',
    "'messages[0].tool_calls[0]' is no call with a name": (
        '{"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]}'
    ),
    "'messages[0].tool_calls[0].arguments' is a text that is not JSON": (
        '{"messages": [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{"}]}]}'
    ),
    "'messages[0].function_call.arguments' must be an object but is a list": (
        '{"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": []}}]}'
    ),
    "'tools[0]' is no function with a name": (
        '{"messages": [{"role": "assistant", "content": "x"}], "tools": [{"type": "web_search"}]}'
    ),
    "'tools' must be a list of functions but is an object": (
        '{"messages": [{"role": "assistant", "content": "x"}], "tools": "{\\"name\\": 1}"}'
    ),
    "'chat_template_kwargs.messages' cannot be set by a row": (
        '{"messages": [{"role": "assistant", "content": "x"}], "chat_template_kwargs": {"messages": []}}'
    ),
    "'images' has a value, but the task llm trains on text only": (
        '{"messages": [{"role": "assistant", "content": "x"}], "images": ["cat.png"]}'
    ),
    "has half of a surrogate pair": '{"messages": [{"role": "user", "content": "\\ud800"}]}',
    "the conversation has no answer": '{"messages": [{"role": "user", "content": "x"}]}',
    "the answer in turn 1 is empty": '{"messages": [{"role": "assistant", "content": ""}]}',
    "there are two system turns": json.dumps(
        {"messages": [SAME_ROWS["messages"]["messages"][0]] * 2 + SAME_ROWS["messages"]["messages"][1:]}
    ),
    "turn 2 is a system turn": json.dumps(
        {"messages": [{"role": "assistant", "content": "x"}, {"role": "system", "content": "x"}]}
    ),
}


@pytest.mark.parametrize("problem", BAD_LINES)
def test_invalid_row_is_named_with_a_remedy(tmp_path: Path, problem: str) -> None:
    line = BAD_LINES[problem]
    line = line if isinstance(line, bytes) else line.encode()
    with pytest.raises(DataError) as caught:
        read(tmp_path, GOOD.encode() + b"\n\n" + line, format="messages")
    assert caught.value.message.startswith("pvc://data/rows.jsonl, row 3: ")
    assert problem in caught.value.message
    assert caught.value.advice.endswith(".")


@pytest.mark.parametrize(
    ("name", "row", "problem"),
    [
        ("alpaca", {"instruction": "x"}, "'output' is missing"),
        ("alpaca", {"instruction": "x", "output": 3}, "'output' must be text but is a number"),
        ("query-response", {"query": "x", "response": ""}, "answer in turn 2 is empty"),
        ("query-response", {"query": "x", "response": "y", "history": ["z"]}, "'history' must be a list of"),
        ("sharegpt", {"conversations": [{"from": "bot", "value": "x"}]}, "'bot', an unknown role"),
        ("text", {"text": ""}, "'text' is empty"),
        ("tokenized", {"input_ids": []}, "'input_ids' is empty"),
        ("tokenized", {"input_ids": [1, True]}, "'input_ids[1]' must be a whole number but is true or false"),
        ("tokenized", {"input_ids": [1, -2]}, "has an impossible token"),
        ("tokenized", {"input_ids": [1, 2], "labels": [1]}, "'labels' has 1 entries, but 'input_ids' has 2"),
        ("tokenized", {"input_ids": [1, 2], "labels": [2, -100]}, "'labels[0]' is 2, but 'input_ids[0]' is 1"),
        ("tokenized", {"input_ids": [1, 2], "labels": [1, -100]}, "no token carries loss"),
        ("tokenized", {"input_ids": [1, 2], "loss_mask": [0, 2]}, "other numbers than 0 and 1"),
        ("tokenized", {"input_ids": [1, 2], "loss_mask": [0, 1], "labels": [1, 2]}, "both 'labels' and 'loss_mask'"),
        ("tokenized", {"input_ids": [1, 2], "attention_mask": [1, 0]}, "'attention_mask' hides tokens"),
        ("query-response", {"query": "x", "response": "y", "trainOn": "me"}, "field 'trainOn' is 'me'"),
    ],
)
def test_formats_refuse_invalid_fields(tmp_path: Path, name: DatasetFormat, row: object, problem: str) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(tmp_path, row, format=name)
    assert problem in caught.value.message


def test_unusable_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no rows"):
        read(tmp_path, "\n\n")
    with pytest.raises(DataError, match="fit no format") as caught:
        read_rows(tmp_path, {"question": "x", "answer": "y"})
    assert "alpaca (instruction, output)" in caught.value.advice
    with pytest.raises(DataError, match="row 2: the row is written as alpaca, but row 1 as text"):
        read_rows(tmp_path, {"text": "x"}, {"instruction": "x", "output": "y"})
    with pytest.raises(NotFoundError, match="There is no file file:///none"):
        ExampleFile(path=tmp_path / "none", name="file:///none").resolve_format()
    with pytest.raises(NotFoundError, match="cannot be read: Is a directory"):
        ExampleFile(path=tmp_path, name="file:///dir").resolve_format()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
turns = st.lists(
    st.dictionaries(
        st.sampled_from(["role", "content", "from", "value"]), json_values | st.sampled_from(["user", "gpt"])
    )
    | json_values,
    max_size=4,
)
fields = st.sampled_from(
    [
        *("messages", "conversations", "instruction", "input", "output", "query", "response", "history", "text"),
        *("system", "input_ids", "labels", "loss_mask", "attention_mask", "trainOn"),
    ]
)
row_values = st.dictionaries(fields, json_values | turns, max_size=6)


@given(st.sampled_from(sorted(FORMATS)), row_values)
def test_parser_returns_an_example_or_raises_data_error(name: DatasetFormat, values: dict[str, object]) -> None:
    try:
        example = FORMATS[name].parse(Row("rows.jsonl", 1, values))
    except DataError as error:
        sentence, example = error.message, None
    if example is None:
        assert sentence.startswith("rows.jsonl, row 1: ")
    else:
        assert example.text or example.tokens or any(message.role == "assistant" for message in example.messages)
        assert len(example.digest) == 32


@given(st.lists(st.binary(max_size=30) | row_values.map(lambda row: json.dumps(row).encode()), max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_read_or_raise_data_error(tmp_path: Path, lines: list[bytes]) -> None:
    try:
        examples, sentence = read(tmp_path, b"\n".join(lines)), ""
    except DataError as error:
        examples, sentence = [], error.message
    assert bool(examples) != sentence.startswith("pvc://data/rows.jsonl")
