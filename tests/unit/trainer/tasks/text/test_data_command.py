"""The `data` commands through the command line, as a user runs them."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from tests.unit.trainer import tiny
from tests.unit.trainer.families import FAMILIES
from tests.unit.trainer.tasks.text.data_cli import Run
from trainyard_crds.trainingjob_inputs import DatasetFormat
from trainyard_trainer.data.rows import Row
from trainyard_trainer.errors import RowError
from trainyard_trainer.tasks.text.convert import TARGETS, convert
from trainyard_trainer.tasks.text.formats.example import Example, Message
from trainyard_trainer.tasks.text.formats.registry import FORMATS


def ask(question: str, answer: str = "yes") -> dict[str, object]:
    return {"query": question, "response": answer}


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_validation_reports_every_invalid_row(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = json.dumps(ask("Hi"))
    bad = ['{"query": "x"}', "nope", '{"query": "x", "response": ""}', '{"text": "x"}'] * 40
    path.write_text("\n".join([good, *bad, good, '{"query": 7, "response": "x"}']))
    code, report, err = run("validate", path)
    assert code == 65
    assert f"{path}: 161 problems in 163 rows." in err
    assert (report["rows"], report["problems"], report["formats"]) == (163, 161, {str(path): "query-response"})
    wanted = {"UnknownFormat": 40, "NotJson": 40, "EmptyAnswer": 40, "MixedFormats": 40, "WrongType": 1}
    assert report["problemsByKind"] == wanted
    assert len(report["firstProblems"]) == 100
    assert [problem["row"] for problem in report["firstProblems"][:3]] == [2, 3, 4]
    code, report, _ = run("validate", path, "--format", "query-response")
    assert report["firstProblems"][0]["field"] == "response"
    assert report["firstProblems"][0]["message"].endswith("field 'response' is missing.")
    assert report["firstProblems"][0]["remedy"] == "Give every row a text in 'response'."


def test_validation_continues_with_the_next_file(run: Run, tmp_path: Path) -> None:
    broken, empty, good = (tmp_path / name for name in ("broken.json", "empty.jsonl", "good.jsonl"))
    broken.write_text('[{"text": "x"}, {"te')
    empty.write_text("\n")
    tiny.write_rows(good, [{"text": "x"}])
    code, report, _ = run("validate", broken, empty, good)
    assert code == 65
    assert report["problemsByKind"] == {"BrokenArray": 1, "UnreadableFile": 1}
    assert report["formats"] == {str(broken): "text", str(good): "text"}
    assert run("validate", good)[0] == 0
    assert run("validate", tmp_path / "none")[0] == 66


messages = st.lists(
    st.builds(
        Message, st.sampled_from(["user", "assistant"]), st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
    ),
    max_size=5,
)
train_on: st.SearchStrategy[Any] = st.sampled_from([None, "all", "completions"])


@given(messages, st.booleans(), st.sampled_from(sorted(TARGETS)), train_on, st.booleans())
def test_converted_row_parses_to_the_same_example(
    turns: list[Message], system: bool, target: DatasetFormat, train: Any, loss: bool
) -> None:
    head = [Message("system", "Be kind.")] if system else []
    last = [Message("user", "Hi"), Message("assistant", "Hello", loss), Message("user", "x"), Message("assistant", "y")]
    example = Example(messages=(*head, *turns, *last), train_on=train)
    alternates = [turn.role for turn in turns] == ["user", "assistant"] * (len(turns) // 2)
    if target in {"messages", "sharegpt"} or (loss and alternates):
        values = convert(Row("rows.jsonl", 1, {}), example, target)
        assert FORMATS[target].parse(Row("rows.jsonl", 1, json.loads(json.dumps(values)))) == example
    else:
        with pytest.raises(RowError, match=r"do not alternate|has loss: false"):
            convert(Row("rows.jsonl", 1, {}), example, target)


@pytest.mark.parametrize("target", ["messages", "sharegpt", "alpaca", "query-response"])
def test_conversion_to_parquet_round_trips(run: Run, tmp_path: Path, target: str) -> None:
    rows = [{"query": "Hi", "response": "Hello", "system": "Be kind."}, {"query": "Bye", "response": "See you"}]
    path, table, output = tmp_path / "rows.jsonl", tmp_path / "rows.parquet", tmp_path / "out.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert run("convert", path, "--to", target, "--output", table)[0] == 0
    assert table.read_bytes()[:4] == b"PAR1"
    assert run("convert", table, "--to", "query-response", "--output", output)[0] == 0
    assert [{key: value for key, value in row.items() if value} for row in read(output)] == rows


def test_conversion_is_atomic(run: Run, tmp_path: Path) -> None:
    path, output = tmp_path / "rows.csv", tmp_path / "out.jsonl"
    path.write_text("instruction,input,output\nAdd,1 and 2,3\nHi,,Hello\n")
    code, document, _ = run("convert", path, "--to", "messages", "--output", output)
    assert (code, document["rows"]) == (0, 2)
    wanted = [{"role": "user", "content": "Add\n\n1 and 2"}, {"role": "assistant", "content": "3"}]
    assert read(output)[0] == {"messages": wanted}
    before = output.read_bytes()
    path.write_text("instruction,output\nHi,there\nHi\n")
    assert run("convert", path, "--to", "messages", "--output", output)[0] == 64
    code, _, err = run("convert", path, "--to", "messages", "--output", output, "--force")
    assert (code, "row 3: it has 1 fields" in err) == (65, True)
    assert output.read_bytes() == before
    assert {found.name for found in tmp_path.iterdir()} == {"rows.csv", "out.jsonl", "termination"}
    path.write_text("instruction,output\nHi,there\n")
    assert run("convert", path, "--to", "sharegpt", "--output", output, "--force")[0] == 0
    assert read(output) == [{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "there"}]}]
    assert run("convert", path, "--to", "sharegpt", "--output", tmp_path / "out.txt")[0] == 64
    assert run("convert", path, "--to", "sharegpt", "--output", tmp_path / "none" / "out.jsonl")[0] == 66


def split(run: Run, rows: Sequence[object], folder: Path, *words: object) -> tuple[list[Any], list[Any]]:
    path = tiny.write_rows(folder / "rows.jsonl", rows)
    train, held = folder / "train.jsonl", folder / "held.jsonl"
    options = ("--fraction", 0.3, "--train", train, "--validation", held, "--force", *words)
    code, document, err = run("split", path, *options)
    assert code == 0, err
    assert (document["trainRows"], document["validationRows"]) == (len(read(train)), len(read(held)))
    return read(train), read(held)


def test_split_is_disjoint_and_stable(run: Run, tmp_path: Path) -> None:
    rows = [{**ask(f"question {number % 100}"), "id": number} for number in range(150)]
    train, held = split(run, rows, tmp_path)
    assert sorted(row["id"] for row in train + held) == list(range(150))
    assert not {row["query"] for row in train} & {row["query"] for row in held}
    assert 25 < len(held) < 65
    more = split(run, [*rows, *({**ask(f"new {number}"), "id": 150 + number} for number in range(50))], tmp_path)[1]
    assert {row["id"] for row in held} < {row["id"] for row in more}


def test_split_by_prompt_keeps_equal_prompts_on_one_side(run: Run, tmp_path: Path) -> None:
    rows = [ask(f"question {number % 50}", f"answer {number}") for number in range(200)]
    train, held = split(run, rows, tmp_path)
    assert {row["query"] for row in train} & {row["query"] for row in held}
    train, held = split(run, rows, tmp_path, "--by", "prompt")
    assert train
    assert held
    assert not {row["query"] for row in train} & {row["query"] for row in held}


def test_split_of_equal_rows_is_refused(run: Run, tmp_path: Path) -> None:
    path = tiny.write_rows(tmp_path / "rows.jsonl", [ask("Hi")] * 5)
    outputs = ("--train", tmp_path / "a.jsonl", "--validation", tmp_path / "b.jsonl")
    code, _, err = run("split", path, "--fraction", 0.3, *outputs)
    assert (code, "too few different rows" in err) == (65, True)
    assert run("split", path, "--fraction", 1.5, *outputs)[0] == 64
    assert run("split", path, "--fraction", 0.5, "--train", path, "--validation", path)[0] == 64
    assert len(read(path)) == 5


def test_statistics(run: Run, tmp_path: Path, tiny_model: Path) -> None:
    rows = [ask("a", "b" * number) for number in range(1, 101)]
    path = tiny.write_rows(tmp_path / "rows.jsonl", [*rows, rows[0], ask("a", "c")])
    code, found, _ = run("stats", path)
    assert code == 0
    assert (found["rows"], found["duplicates"], found["repeatedPrompts"]) == (102, 1, 100)
    assert found["turns"]["max"] == 2
    assert (found["characters"]["min"], found["characters"]["p90"], found["characters"]["max"]) == (2, 91, 101)
    assert "tokens" not in found
    code, found, _ = run("stats", path, "--model", tiny_model, "--max-length", 50)
    assert code == 0
    tokens = found["tokens"]
    assert tokens["min"] < tokens["p50"] < tokens["p99"] <= tokens["max"]
    assert 0 < found["lossTokens"] < tokens["total"]
    assert found["overlongRows"] == round(found["overlongShare"] * 102) > 0
    assert 0.5 < found["packingEfficiency"] <= 1
    code, every, _ = run("stats", path, "--model", tiny_model, "--train-on", "all")
    assert every["lossTokens"] == tokens["total"] - 102


def test_commands_do_not_import_torch(tmp_path: Path) -> None:
    path = tiny.write_rows(tmp_path / "rows.jsonl", [ask("Hi")])
    code = (
        "import sys; from trainyard_trainer.cli import run_command; from trainyard_trainer.stop import StopFlag;"
        "code = run_command(StopFlag()); heavy = {'torch', 'transformers'} & set(sys.modules);"
        "sys.exit(code or len(heavy))"
    )
    for words in (["validate"], ["stats"], ["convert", "--to", "messages", "--output", str(tmp_path / "out.jsonl")]):
        command = [sys.executable, "-c", code, "data", words[0], str(path), *words[1:]]
        paths = {"PYTHONPATH": ":".join(sys.path)}
        assert subprocess.run(command, env=paths, capture_output=True, check=False).returncode == 0


CALL = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Porto", "days": null}'}}
TOOL_ROW: dict[str, Any] = {
    "messages": [
        {"role": "user", "content": "Is it warm in Porto?"},
        {"role": "assistant", "content": "", "reasoning_content": "Ask.", "tool_calls": [{"id": "a1", **CALL}, CALL]},
        {"role": "tool", "content": "31", "tool_call_id": "a1"},
        {"role": "tool", "content": "sunny"},
        {"role": "assistant", "content": "No.", "loss": False},
        {"role": "assistant", "content": "<think>Hm.</think>Yes."},
    ],
    "tools": [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}],
    "chat_template_kwargs": {"enable_thinking": True},
}


@pytest.mark.parametrize("target", ["messages", "sharegpt"])
def test_tool_rows_survive_conversion_to_parquet(run: Run, tmp_path: Path, target: str) -> None:
    path = tiny.write_rows(tmp_path / "rows.jsonl", [TOOL_ROW, {"messages": TOOL_ROW["messages"][-1:]}])
    assert run("convert", path, "--to", target, "--output", tmp_path / "rows.parquet")[0] == 0
    assert run("convert", tmp_path / "rows.parquet", "--to", "messages", "--output", tmp_path / "out.jsonl")[0] == 0
    assert read(tmp_path / "out.jsonl") == read(path)


def test_statistics_count_tools_reasoning_and_masks(run: Run, tmp_path: Path) -> None:
    path = tiny.write_rows(tmp_path / "rows.jsonl", [TOOL_ROW, {"messages": TOOL_ROW["messages"][-1:]}])
    found = run("stats", path)[1]
    assert (found["toolRows"], found["toolCalls"], found["toolTurns"]) == (1, 2, 2)
    assert (found["reasoningTurns"], found["maskedTurns"]) == (3, 1)


def test_validation_warns_of_each_unused_field_once(run: Run, tmp_path: Path, tiny_model: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello", "weigth": 0}]
    rows = [{"messages": turns, "id": number} for number in range(3)] + [{"messages": turns[:1]}, {"messages": turns}]
    path = tiny.write_rows(tmp_path / "rows.jsonl", rows)
    for options in ((), ("--model", tiny_model)):
        code, report, _ = run("validate", path, *options)
        assert (code, report["problems"]) == (65, 1)
        assert [warning["message"] for warning in report["warnings"] if warning["kind"] == "FieldIgnored"] == [
            f"4 of 5 rows of {path} have the field 'messages[].weigth', which training does not use.",
            f"3 of 5 rows of {path} have the field 'id', which training does not use.",
        ]


def test_rows_of_the_tool_calling_example_are_trained_on(run: Run, tmp_path: Path) -> None:
    model = FAMILIES["qwen_3"].save(tmp_path / "model")
    path = Path(__file__).parents[5] / "examples/tool-calling.jsonl"
    code, report, _ = run("validate", path, "--model", model)
    assert (code, report["problems"], report.get("warnings", [])) == (0, 0, [])
    found = run("stats", path, "--model", model)[1]
    assert (found["toolRows"], found["toolCalls"], found["toolTurns"]) == (3, 3, 3)
    assert (found["reasoningTurns"], found["maskedTurns"]) == (2, 1)
    assert 0 < found["lossTokens"] < found["tokens"]["total"] / 2


def test_validation_warns_of_what_a_template_leaves_out(run: Run, tmp_path: Path) -> None:
    model = FAMILIES["phi_4"].save(tmp_path / "model")
    thinking = [TOOL_ROW["messages"][0], {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."}]
    rows = [{"messages": thinking, "tools": TOOL_ROW["tools"]}, {"messages": thinking}, {"messages": thinking}]
    path = tiny.write_rows(tmp_path / "rows.jsonl", rows)
    code, report, _ = run("validate", path, "--model", model)
    assert code == 0
    assert [(one["kind"], one["message"].split(" of ")[0]) for one in report["warnings"]] == [
        ("ToolsLeftOut", "1"),
        ("ReasoningLeftOut", "3"),
    ]


def test_fields_that_a_conversion_loses_are_named(run: Run, tmp_path: Path) -> None:
    rows = [{**ask("Hi"), "id": number} for number in range(3)]
    path = tiny.write_rows(tmp_path / "rows.jsonl", [*rows, ask("Bye")])
    assert run("convert", path, "--to", "messages", "--output", tmp_path / "a.jsonl")[1]["fieldsNotWritten"] == {
        "id": 3
    }


def test_columns_of_a_parquet_file_that_are_not_read_are_a_warning(run: Run, tmp_path: Path) -> None:
    table = pa.table({"query": ["Hi", "Bye"], "response": ["Hello", "See you"], "source": ["a", "b"]})
    parquet.write_table(table, tmp_path / "rows.parquet")
    code, report, _ = run("validate", tmp_path / "rows.parquet")
    assert code == 0
    assert [warning["message"] for warning in report["warnings"]] == [
        f"2 of 2 rows of {tmp_path / 'rows.parquet'} have the field 'source', which training does not use."
    ]
