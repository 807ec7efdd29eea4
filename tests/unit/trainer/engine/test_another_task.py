"""A task with images trains, evaluates, saves, resumes and exports through the engine."""

import hashlib
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.unit.trainer.toy import metric_lines
from tests.unit.trainer.toy_images import WEIGHTS, ImagesTask, images_config, register
from trainyard_crds.report import Termination
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer import bootstrap
from trainyard_trainer.engine.task import Loaded, MicroBatch
from trainyard_trainer.errors import ConfigurationError
from trainyard_trainer.export import export_command
from trainyard_trainer.stop import StopFlag
from trainyard_trainer.tasks.registry import TASKS, definition_of


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)


def train(run: Path, stop: StopFlag | None = None, **blocks: object) -> Termination:
    return bootstrap.train(images_config(run, **blocks), stop=stop or StopFlag(), environ={})


def exported(run: Path) -> bytes:
    return (run / "exports/model" / WEIGHTS).read_bytes()


def test_task_learns_and_exports_its_most_accurate_checkpoint(tmp_path: Path) -> None:
    termination = train(tmp_path)
    assert (termination.exit_code, termination.step) == (0, 16), termination
    assert termination.metrics["accuracy"] > 0.9
    [best] = [one for one in termination.checkpoints if one.best]
    assert best.metrics["accuracy"] == max(line["accuracy"] for line in metric_lines(tmp_path) if "accuracy" in line)
    assert exported(tmp_path) == (tmp_path / "checkpoints" / best.name / "weights" / WEIGHTS).read_bytes()
    assert termination.exports[0].message == "Copied the network."


def test_throughput_is_in_images(tmp_path: Path) -> None:
    train(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert any("imagesPerSecond" in line for line in lines)
    assert not any("tokensPerSecond" in line for line in lines)


@pytest.mark.parametrize("at_loss", [3, 10, 17, 30])
def test_interrupted_run_ends_with_the_bits_of_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_loss: int
) -> None:
    whole = train(tmp_path / "whole")
    stop, calls, loss = StopFlag(), list[None](), ImagesTask.loss

    def stopping_loss(task: ImagesTask, loaded: Loaded, batch: MicroBatch) -> object:
        calls.append(None)
        if len(calls) == at_loss:
            stop.request()
        return loss(task, loaded, batch)

    with monkeypatch.context() as patch:
        patch.setattr(ImagesTask, "loss", stopping_loss)
        assert train(tmp_path / "resumed", stop).exit_code == 75
    resumed = train(tmp_path / "resumed")
    assert resumed.exit_code == 0
    assert resumed.metrics == whole.metrics
    assert exported(tmp_path / "resumed") == exported(tmp_path / "whole")
    assert metric_lines(tmp_path / "resumed") == metric_lines(tmp_path / "whole")


def test_its_own_settings_are_checked_on_resume(tmp_path: Path) -> None:
    train(tmp_path)
    (tmp_path / "result.json").unlink()
    termination = train(tmp_path, images={"channels": 8})
    assert (termination.exit_code, termination.message) == (
        65,
        "images.channels was 4 when this run began and is 8 now.",
    )


def test_finished_run_is_exported_again_without_training(tmp_path: Path) -> None:
    train(tmp_path)
    digest = hashlib.sha256(exported(tmp_path)).hexdigest()
    (tmp_path / "exports/model/export.json").unlink()
    termination = export_command.export(images_config(tmp_path), stop=StopFlag(), environ={})
    assert termination.reason == "Exported"
    assert hashlib.sha256(exported(tmp_path)).hexdigest() == digest


def test_metric_and_format_it_does_not_know_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"evaluation\.metric is meanIou, which task images does not report"):
        definition_of(images_config(tmp_path, evaluation={"metric": "meanIou"}))
    with pytest.raises(ConfigurationError, match=r"exports\[\].format is gguf, which task images does not write"):
        definition_of(images_config(tmp_path, exports=[{"format": "gguf"}]))


def test_its_memory_advice_ends_a_run_without_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_task: ImagesTask, _loaded: Loaded, _batch: MicroBatch) -> object:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(ImagesTask, "loss", fail)
    termination = train(tmp_path)
    assert (termination.exit_code, termination.advice) == (79, "Lower images.channels.")


def test_users_cannot_choose_it(tmp_path: Path) -> None:
    document = images_config(tmp_path).to_json()
    del document["images"]
    with pytest.raises(ValidationError, match="task"):
        RunConfig.model_validate(document)


def test_registry_lists_exactly_the_tasks_of_the_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(TASKS, "images")
    assert TASKS.keys() == {"llm"}
