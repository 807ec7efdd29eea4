"""Exports of a finished run: the same as at its end; nothing else in the run directory changes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer import tiny, toy
from tests.unit.trainer.cli_support import run_command_line
from tests.unit.trainer.definitions import replace_llm
from tests.unit.trainer.sources.s3_server import Storage
from trainyard_crds.report import Termination
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer import bootstrap
from trainyard_trainer.checkpoint.files import Files
from trainyard_trainer.checkpoint.store import open_store
from trainyard_trainer.errors import DataError, NotFoundError, StopRequested, SupersededError
from trainyard_trainer.export import export_command
from trainyard_trainer.objective import Objective
from trainyard_trainer.stop import StopFlag

GGUF = [{"format": "gguf"}]
OF_AN_OWNER = ("owner", "checkpoints/index.json", "log.jsonl", "exports")


def export_toy(config: RunConfig, task: toy.ToyTask, stop: StopFlag | None = None) -> Termination:
    with pytest.MonkeyPatch.context() as patch:
        replace_llm(lambda: task, patch)
        return export_command.export(config, stop=stop or StopFlag(), environ={})


def content(run: Path) -> dict[str, str]:
    """Return the digest of every file, except those that a new owner writes."""
    files = (path for path in sorted(run.rglob("*")) if path.is_file())
    named = {path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return {name: digest for name, digest in named.items() if not name.startswith(OF_AN_OWNER)}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run with its model exported."""
    assert toy.train_toy(toy.run_config(tmp_path / "run"), toy.ToyTask()).exit_code == 0
    return tmp_path / "run"


def test_export_is_added_without_training(run: Path) -> None:
    before, model = content(run), toy.exported(run)
    task = toy.ToyTask(hooks={"loss": unexpected, "load": unexpected, "evaluate": unexpected})
    [export] = export_toy(toy.run_config(run, exports=GGUF), task).exports
    assert (export.format, export.message) == ("gguf", "Made as gguf, later.")
    assert content(run) == before
    assert toy.exported(run) == model == (run / "exports/gguf/model.safetensors").read_bytes()


def unexpected(_call: int) -> None:
    raise AssertionError


def test_existing_exports_are_not_written_again(run: Path) -> None:
    calls: list[int] = []
    both = toy.run_config(run, exports=[{"format": "model"}, *GGUF])
    first = export_toy(both, toy.ToyTask(hooks={"export_saved": calls.append}))
    assert calls == [1], "the model was exported when the run ended"
    second = export_toy(both, toy.ToyTask(hooks={"export_saved": unexpected}))
    assert second.exports == first.exports


def test_unfinished_run_is_refused_untouched(tmp_path: Path) -> None:
    """A claim of the directory would end its trainer."""
    run = tmp_path / "run"
    stopped = StopFlag()
    hooks: dict[str, Callable[[int], None]] = {"loss": lambda call: stopped.request() if call == 30 else None}
    assert toy.train_toy(toy.run_config(run), toy.ToyTask(hooks=hooks), stopped).exit_code == 75
    before = sorted(path.name for path in (run / "owner").iterdir())
    with pytest.raises(NotFoundError, match="holds no finished run"):
        export_toy(toy.run_config(run, exports=GGUF), toy.ToyTask())
    assert sorted(path.name for path in (run / "owner").iterdir()) == before


def test_stopped_and_killed_export_is_written_by_next_start(run: Path) -> None:
    before, stop, config = content(run), StopFlag(), toy.run_config(run, exports=GGUF)
    with pytest.raises(StopRequested):
        export_toy(config, toy.ToyTask(hooks={"export_saved": lambda _call: stop.request()}), stop)
    assert content(run) == before

    def strike(_call: int) -> None:
        raise toy.Killed

    with pytest.raises(toy.Killed):
        export_toy(config, toy.ToyTask(hooks={"export_saved": strike}))
    assert not (run / "exports/gguf").exists()
    export_toy(config, toy.ToyTask())
    assert content(run) == before
    assert (run / "exports/gguf/export.json").exists()


def test_later_export_command_owns_the_directory(run: Path) -> None:
    def take_over(_call: int) -> None:
        open_store(
            run,
            files=Files(),
            keep=2,
            run_uri=None,
            pod_uid="other",
            now="t",
            objective=Objective("evalLoss", "minimize"),
        )

    with pytest.raises(SupersededError):
        export_toy(toy.run_config(run, exports=GGUF), toy.ToyTask(hooks={"export_saved": take_over}))
    assert not (run / "exports/gguf").exists()


def test_only_valid_checkpoints_are_exported(run: Path) -> None:
    config = toy.run_config(run, exports=GGUF)
    made = json.loads((run / "exports/model/export.json").read_text())
    best = next((run / "checkpoints").glob(f"step-{made['step']}-*"))
    weights = best / "weights/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    export_toy(config, toy.ToyTask())
    assert json.loads((run / "exports/gguf/export.json").read_text())["step"] != made["step"]
    for checkpoint in (run / "checkpoints").glob("step-*"):
        (checkpoint / "manifest.json").unlink()
    with pytest.raises(NotFoundError, match="None of the run's checkpoints is whole"):
        export_toy(config, toy.ToyTask())


def test_settings_of_another_run_are_refused(run: Path) -> None:
    config = toy.run_config(run, exports=GGUF, model={"source": "file:///other"})
    with pytest.raises(DataError, match=r"model\.source was"):
        export_toy(config, toy.ToyTask())


def test_command_reports_its_exports(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replace_llm(toy.ToyTask, monkeypatch)
    document = tmp_path / "export.json"
    document.write_text(json.dumps(toy.run_config(run, exports=GGUF).to_json()))
    termination = run_command_line(monkeypatch, tmp_path, "export", "--config", str(document))
    assert (termination.reason, [export.format for export in termination.exports]) == ("Exported", ["gguf"])
    assert "Export gguf: Made as gguf, later." in capsys.readouterr().out
    (run / "result.json").unlink()
    assert run_command_line(monkeypatch, tmp_path, "export", "--config", str(document)).exit_code == 66


def language_config(run: Path, rows: Path, model: Path, exports: list[dict[str, str]], **changes: Any) -> RunConfig:
    document = {
        "runDirectory": str(run),
        "task": "llm",
        "method": "qlora",
        "model": {"source": f"file://{model}"},
        "dataset": {"source": f"file://{rows}"},
        "optimization": {"precision": "fp32", "learningRate": 0.01, "maxSteps": 4},
        "llm": {"maxLength": 128},
        "exports": exports,
    }
    return RunConfig.model_validate(document | changes)


@pytest.mark.parametrize(
    ("method", "first", "later"),
    [
        ("qlora", "adapter", [{"format": "merged", "base": "dequantized"}, {"format": "gguf", "base": "dequantized"}]),
        ("qlora", "adapter", [{"format": "merged"}, {"format": "gguf", "type": "q8_0"}]),
        ("lora", "gguf", [{"format": "adapter"}, {"format": "merged"}]),
        ("full", "gguf", [{"format": "model"}]),
    ],
    ids=["qlora dequantized", "qlora original", "lora", "full"],
)
def test_later_export_equals_export_at_end_of_run(
    tmp_path: Path, tiny_model: Path, method: str, first: str, later: list[dict[str, str]]
) -> None:
    rows = tiny.write_rows(tmp_path / "rows.jsonl", tiny.questions(24))
    begun = language_config(tmp_path / "later", rows, tiny_model, [{"format": first}], method=method)
    assert bootstrap.train(begun, stop=StopFlag(), environ={}).exit_code == 0
    shutil.copytree(tmp_path / "later", tmp_path / "once")
    (tmp_path / "once/result.json").unlink()
    once = language_config(tmp_path / "once", rows, tiny_model, later, method=method)
    wanted = bootstrap.train(once, stop=StopFlag(), environ={})
    assert wanted.exit_code == 0, wanted.message

    made = export_command.export(
        begun.model_copy(update={"exports": once.exports}), stop=StopFlag(), environ={}
    ).exports
    assert [(one.format, one.digest, one.message) for one in made] == [
        (one.format, one.digest, one.message) for one in wanted.exports
    ]
    assert not (tmp_path / "later/cache").exists()


def test_uncompared_export_needs_no_rows_and_is_uploaded(
    tmp_path: Path, tiny_model: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tiny.write_rows(tmp_path / "rows.jsonl", tiny.questions(24))
    config = language_config(tmp_path / "run", rows, tiny_model, [{"format": "adapter"}])
    assert bootstrap.train(config, stop=StopFlag(), environ={}).exit_code == 0
    rows.unlink()
    asked = [{"format": "gguf", "destination": "s3://models/a"}, {"format": "adapter", "destination": "s3://models/b"}]
    for name, value in storage.environ.items():
        monkeypatch.setenv(name, value)
    place = {"s3": {"endpoint": storage.s3.endpoint}}
    config = language_config(tmp_path / "run", rows, tiny_model, asked, **place)
    made = export_command.export(config, stop=StopFlag(), environ={}).exports
    assert [one.destination for one in made] == ["s3://models/a", "s3://models/b"]
