"""Exports are published complete, and only once, whenever the trainer is stopped or killed."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer import toy
from trainyard_trainer.checkpoint.files import sha256_of
from trainyard_trainer.stop import StopFlag

TWO = [{"format": "model"}, {"format": "gguf"}]


def run(tmp_path: Path, exports: list[dict[str, str]] | None = None) -> Any:
    return toy.run_config(tmp_path / "run", **({} if exports is None else {"exports": exports}))


def made(counted: list[int]) -> toy.ToyTask:
    return toy.ToyTask(hooks={"export": counted.append})


def killed_at(call: int) -> toy.ToyTask:
    def strike(number: int) -> None:
        if number == call:
            raise toy.Killed

    return toy.ToyTask(hooks={"export": strike})


def test_record_describes_source_and_files(tmp_path: Path) -> None:
    [export] = toy.train_toy(run(tmp_path), toy.ToyTask()).exports
    directory = tmp_path / "run/exports/model"
    record = json.loads((directory / "export.json").read_text())
    weights = directory / "model.safetensors"
    assert record["files"] == {"model.safetensors": {"bytes": weights.stat().st_size, "sha256": sha256_of(weights)}}
    assert (record["format"], record["message"], export.message) == ("model", "Made as model.", "Made as model.")
    assert record["weights"].startswith("sha256:")
    assert export.bytes == weights.stat().st_size


def test_start_after_kill_writes_missing_exports_only(tmp_path: Path) -> None:
    with pytest.raises(toy.Killed):
        toy.train_toy(run(tmp_path, TWO), killed_at(2))
    exports = tmp_path / "run/exports"
    assert [path.name for path in exports.iterdir()] == ["model"]
    before, calls = (exports / "model/export.json").stat().st_mtime_ns, list[int]()
    termination = toy.train_toy(run(tmp_path, TWO), made(calls))
    assert [export.format for export in termination.exports] == ["model", "gguf"]
    assert calls == [1]
    assert (exports / "model/export.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["content", "missing", "extra", "record"])
def test_damaged_export_is_written_again(tmp_path: Path, damage: str) -> None:
    with pytest.raises(toy.Killed):
        toy.train_toy(run(tmp_path, TWO), killed_at(2))
    model = tmp_path / "run/exports/model"
    wanted = (model / "model.safetensors").read_bytes()
    if damage == "content":
        (model / "model.safetensors").write_bytes(wanted[:-1] + b"x")
    elif damage == "missing":
        (model / "model.safetensors").unlink()
    elif damage == "extra":
        (model / "more.safetensors").write_bytes(b"")
    else:
        (model / "export.json").write_text("{")
    calls: list[int] = []
    toy.train_toy(run(tmp_path, TWO), made(calls))
    assert calls == [1, 2]
    assert sorted(path.name for path in model.iterdir()) == ["export.json", "model.safetensors"]
    assert (model / "model.safetensors").read_bytes() == wanted


def test_export_of_other_request_is_written_again(tmp_path: Path) -> None:
    gguf = [{"format": "gguf", "type": "f16"}, {"format": "model"}]
    with pytest.raises(toy.Killed):
        toy.train_toy(run(tmp_path, gguf), killed_at(2))
    calls: list[int] = []
    toy.train_toy(run(tmp_path, [{"format": "gguf", "type": "f32"}]), made(calls))
    assert calls == [1]
    assert json.loads((tmp_path / "run/exports/gguf/export.json").read_text())["type"] == "f32"


def test_stop_in_export_is_resumed_by_next_start(tmp_path: Path) -> None:
    stop = StopFlag()

    def request(_number: int) -> None:
        stop.request()
        stop.check()

    assert toy.train_toy(run(tmp_path), toy.ToyTask(hooks={"export": request}), stop).exit_code == 75
    assert not list((tmp_path / "run/exports").iterdir())
    assert toy.train_toy(run(tmp_path), toy.ToyTask()).exit_code == 0
