"""`data validate --model`: refusals of the chat template and rows that are too long, with the messages of training."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer import tiny
from tests.unit.trainer.tasks.text.data_cli import Run
from trainyard_trainer.errors import TrainerError
from trainyard_trainer.tasks.text.chat import Encoder
from trainyard_trainer.tasks.text.example_file import ExampleFile
from trainyard_trainer.tasks.text.token_rows import tokenize_file

STRICT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def turn(role: str, content: str = "Hi") -> dict[str, str]:
    return {"role": role, "content": content}


GOOD = {"messages": [turn("user"), turn("assistant")]}
SYSTEM = {"messages": [turn("system"), turn("user"), turn("assistant")]}
TWICE = {"messages": [turn("user"), turn("assistant"), turn("assistant"), turn("user")]}
SHAREGPT = {"system": "Be kind.", "conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]}


def tokenizer(directory: Path, template: str | None) -> Path:
    tiny.make_tokenizer(template).save_pretrained(directory)
    return directory


def in_training(path: Path, model: Path) -> TrainerError:
    from transformers import AutoTokenizer

    encoder = Encoder(AutoTokenizer.from_pretrained(model), "completions", str(model))
    file = ExampleFile(path=path, name=str(path))
    with pytest.raises(TrainerError) as caught:
        tokenize_file(file, encoder, max_length=64, overlong="drop", poll=lambda: None)
    return caught.value


def test_template_refusal_names_row_turn_and_field(run: Run, tmp_path: Path) -> None:
    model = tokenizer(tmp_path / "model", STRICT_TEMPLATE)
    path = tiny.write_rows(tmp_path / "rows.jsonl", [GOOD, SYSTEM, *[GOOD] * 300, TWICE, {"messages": 7}])
    code, report, _ = run("validate", path, "--model", model)
    assert code == 65
    assert (report["rows"], report["problemsByKind"]) == (304, {"TemplateRefused": 2, "WrongType": 1})
    system, twice, other = report["firstProblems"]
    assert (system["row"], system["field"]) == (2, "messages[0]")
    assert (twice["row"], twice["field"]) == (303, "messages[2]")
    assert twice["message"].endswith(
        f"the chat template of {model} refuses turn 3 (assistant): Conversation roles must alternate "
        "user/assistant/user/assistant/."
    )
    assert other["row"] == 304
    assert run("validate", path)[1]["problemsByKind"] == {"WrongType": 1}
    tiny.write_rows(path, [GOOD, SYSTEM])
    error = in_training(path, model)
    assert (error.message, error.advice) == (system["message"], system["remedy"])


def test_refused_system_text_is_reported_as_its_field(run: Run, tmp_path: Path) -> None:
    model = tokenizer(tmp_path / "model", STRICT_TEMPLATE)
    path = tiny.write_rows(tmp_path / "rows.jsonl", [SHAREGPT])
    [problem] = run("validate", path, "--model", model)[1]["firstProblems"]
    assert problem["field"] == "system"


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (None, "has no chat template, which conversations need"),
        ("{{ messages[0]['content'] | nonsense }}", "does not work: No filter named 'nonsense'"),
        ("{{ messages[5].role.x.y }}", "does not work: "),
        ("{{ 1 // 0 }}", "does not work: "),
    ],
)
def test_unusable_template_is_reported_once_per_file(
    run: Run, tmp_path: Path, template: str | None, sentence: str
) -> None:
    model = tokenizer(tmp_path / "model", template)
    path = tiny.write_rows(tmp_path / "rows.jsonl", [GOOD] * 3)
    code, report, _ = run("validate", path, "--model", model)
    [problem] = report["firstProblems"]
    assert (code, problem["kind"], report["rows"]) == (65, "ChatTemplate", 3)
    assert sentence in problem["message"]
    error = in_training(path, model)
    assert (error.message, error.advice) == (problem["message"], problem["remedy"])
    texts = tiny.write_rows(tmp_path / "texts.jsonl", [{"text": "Hi"}])
    assert run("validate", texts, "--model", model)[0] == 0


@pytest.mark.parametrize(
    ("overlong", "counts"),
    [("drop", (2, 0, 0)), ("truncate", (0, 2, 0)), ("split", (1, 0, 1))],
)
def test_overlong_rows_are_counted_as_in_training(
    run: Run, tmp_path: Path, tiny_model: Path, overlong: str, counts: tuple[int, int, int]
) -> None:
    short, long = (
        {"messages": [turn("user"), turn("assistant")]},
        {"messages": [turn("user"), turn("assistant", "Hi" * 40)]},
    )
    conversations = tiny.write_rows(tmp_path / "rows.jsonl", [short, long, short])
    texts = tiny.write_rows(tmp_path / "texts.jsonl", [{"text": "x"}, {"text": "x y z " * 30}])
    options = ("--model", tiny_model, "--max-length", 32, "--overlong", overlong)
    code, report, _ = run("validate", conversations, texts, *options)
    lengths = report["lengths"]
    assert code == 0
    assert (lengths["rowsDropped"], lengths["rowsTruncated"], lengths["rowsSplit"]) == counts
    assert [(one["file"], one["row"]) for one in lengths["firstTooLong"]] == [(str(conversations), 2), (str(texts), 2)]
    assert lengths["longest"] == max(one["tokens"] for one in lengths["firstTooLong"])


def test_file_without_a_usable_row_is_a_problem(run: Run, tmp_path: Path, tiny_model: Path) -> None:
    path = tiny.write_rows(tmp_path / "rows.jsonl", [{"messages": [turn("user", "Hi" * 90), turn("assistant")]}])
    code, report, _ = run("validate", path, "--model", tiny_model, "--max-length", 64)
    [problem] = report["firstProblems"]
    assert (code, problem["kind"]) == (65, "NothingToLearn")
    error = in_training(path, tiny_model)
    assert (error.message, error.advice) == (problem["message"], problem["remedy"])


def test_output_without_json(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from trainyard_trainer.cli import run_command
    from trainyard_trainer.stop import StopFlag

    rows = [{"messages": [turn("user", "Hi" * size), turn("assistant")]} for size in (1, 40)]
    path = tiny.write_rows(tmp_path / "rows.jsonl", rows)
    words = ["trainyard-trainer", "data", "validate", str(path), "--model", str(tiny_model), "--max-length", "32"]
    monkeypatch.setenv("TRAINYARD_TERMINATION_LOG", str(tmp_path / "termination"))
    monkeypatch.setattr("sys.argv", words)
    assert run_command(StopFlag()) == 0
    out = capsys.readouterr().out
    assert "1 of 2 rows are longer than maxLength 32 (longest: " in out
    assert "): training drops them\n" in out
    assert f"{path}, row 2: " in out


def document(tmp_path: Path, **changes: Any) -> Path:
    rows = tiny.write_rows(tmp_path / "train.jsonl", [GOOD, SYSTEM])
    held = tiny.write_rows(tmp_path / "held.jsonl", [TWICE, GOOD])
    config = {
        "runDirectory": str(tmp_path / "run"),
        "task": "llm",
        "model": {"source": f"file://{tokenizer(tmp_path / 'model', STRICT_TEMPLATE)}"},
        "dataset": {"source": f"file://{rows}", "maxRows": 1, "validation": {"source": f"file://{held}"}},
        **changes,
    }
    path = tmp_path / "run.json"
    path.write_text(json.dumps(config))
    return path


def test_run_config_supplies_files_model_and_settings(run: Run, tmp_path: Path) -> None:
    config = document(tmp_path, llm={"maxLength": 8, "overlong": "truncate"})
    code, report, _ = run("validate", "--config", config)
    assert (code, report["rows"]) == (65, 3)
    assert [(one["file"], one["row"]) for one in report["firstProblems"]] == [(str(tmp_path / "held.jsonl"), 1)]
    assert (report["lengths"]["maxLength"], report["lengths"]["overlong"]) == (8, "truncate")
    other = tiny.write_rows(tmp_path / "other.jsonl", [SYSTEM])
    assert run("validate", other, "--config", config)[1]["rows"] == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "There are no files to check. Name them, or a run config with --config."),
        (["rows.jsonl", "--max-length", "9"], "--max-length has no effect without --model or --config."),
        (["rows.jsonl", "--overlong", "drop"], "--overlong has no effect without --model or --config."),
        (["rows.jsonl", "--model", "none"], "The model none has no tokenizer that can be loaded"),
    ],
)
def test_invalid_options_are_refused(run: Run, words: list[str], sentence: str) -> None:
    code, _, err = run("validate", *words)
    assert code in (64, 66)
    assert sentence in err


@pytest.mark.parametrize(
    ("block", "field"), [("model", "model.source is hf://org/name"), ("dataset", "dataset.source is s3://rows/x.jsonl")]
)
def test_remote_sources_are_refused(run: Run, tmp_path: Path, block: str, field: str) -> None:
    config = document(tmp_path, **{block: {"source": field.partition(" is ")[2]}})
    code, _, err = run("validate", "--config", config)
    assert code == 64
    assert f"{field}, which is not on this machine. Download it" in err
