import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.trainer.toy import ToyBatch, ToyData, ToyTask, count_calls, metric_lines, run_config, train_toy
from trainyard_crds.report import Termination
from trainyard_trainer.checkpoint.files import Files
from trainyard_trainer.engine.device import choose_device
from trainyard_trainer.errors import ConfigurationError
from trainyard_trainer.stop import StopFlag


def at(number: int, action: Callable[[], None]) -> Callable[[int], None]:
    def strike(call: int) -> None:
        if call == number:
            action()

    return strike


def test_run_ends_with_metrics_checkpoints_and_export(tmp_path: Path) -> None:
    termination = train_toy(run_config(tmp_path, evaluation={"baseline": True}, runUri="pvc://claim/run"), ToyTask())
    assert (termination.exit_code, termination.reason) == (0, "TrainingFinished")
    assert (termination.step, termination.total_steps, termination.epoch) == (12, 12, 4.0)
    assert set(termination.metrics) == {"baselineEvalLoss", "evalLoss", "loss", "gradNorm", "learningRate"}
    assert termination.metrics["evalLoss"] < termination.metrics["baselineEvalLoss"]
    assert [(one.name, one.best) for one in termination.checkpoints] == [("step-9-e1", False), ("step-12-e1", True)]
    assert termination.checkpoints[0].uri == "pvc://claim/run/checkpoints/step-9-e1"
    [export] = termination.exports
    size = (tmp_path / "exports/model/model.safetensors").stat().st_size
    assert (export.format, export.uri, export.bytes) == ("model", "pvc://claim/run/exports/model", size)
    assert Termination.model_validate_json((tmp_path / "result.json").read_bytes()) == termination


def test_loss_is_mean_since_last_log_line(tmp_path: Path) -> None:
    lines = {}
    for every in (1, 4):
        train_toy(run_config(tmp_path / str(every), optimization={"loggingSteps": every}), ToyTask())
        lines[every] = {line["step"]: line["loss"] for line in metric_lines(tmp_path / str(every)) if "loss" in line}
    tokens = {step: 6 if step % 3 == 0 else 12 for step in range(1, 13)}  # the third step of a pass has 2 micro-batches
    window = range(1, 5)
    expected = sum(lines[1][step] * tokens[step] for step in window) / sum(tokens[step] for step in window)
    assert lines[4][4] == pytest.approx(expected, rel=1e-12)


class SameBatch(ToyData):
    """The first micro-batch again and again, or several of it at once."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self._times = times

    def micro_batch(self, epoch: int, index: int) -> ToyBatch:
        batch = super().micro_batch(0, 0)
        return ToyBatch(batch.rows.repeat(self._times, 1), batch.targets.repeat(self._times))


def test_accumulation_equals_one_large_batch(tmp_path: Path) -> None:
    ends = []
    for times in (1, 4):
        options = {"maxSteps": 1, "gradientAccumulation": 4 // times}
        task = ToyTask(dropout=0.0, data=SameBatch(times))
        ends.append(train_toy(run_config(tmp_path / str(times), optimization=options), task))
    many, large = ends
    assert many.metrics == pytest.approx(large.metrics, rel=1e-5)


def test_best_checkpoint_is_kept_and_exported(tmp_path: Path) -> None:
    config = run_config(tmp_path, checkpoints={"keep": 1})
    termination = train_toy(config, ToyTask(evaluations=[0.5, 0.2, 0.4, 0.3]))
    assert [(one.step, one.best) for one in termination.checkpoints] == [(6, True), (12, False)]
    weights = tmp_path / "checkpoints/step-6-e1/weights/model.safetensors"
    assert (tmp_path / "exports/model/model.safetensors").read_bytes() == weights.read_bytes()
    index = json.loads((tmp_path / "checkpoints/index.json").read_text())
    assert (index["last"], index["best"]) == ("step-12-e1", "step-6-e1")


def test_improvement_between_periodic_checkpoints_is_saved(tmp_path: Path) -> None:
    config = run_config(tmp_path, checkpoints={"everySteps": 100, "keep": 20}, evaluation={"everySteps": 2})
    termination = train_toy(config, ToyTask(evaluations=[0.5, 0.6, 0.4, 0.4, 0.7, 0.8]))
    assert [one.step for one in termination.checkpoints] == [2, 6, 12]


def test_last_checkpoint_is_exported_without_evaluation(tmp_path: Path) -> None:
    termination = train_toy(run_config(tmp_path), ToyTask(has_evaluation=False))
    weights = tmp_path / "checkpoints/step-12-e1/weights/model.safetensors"
    assert (tmp_path / "exports/model/model.safetensors").read_bytes() == weights.read_bytes()
    assert "evalLoss" not in termination.metrics


def test_nan_loss_names_its_step_and_keeps_last_checkpoint(tmp_path: Path) -> None:
    config = run_config(tmp_path, optimization={"loggingSteps": 100, "gradientAccumulation": 5})
    termination = train_toy(config, ToyTask(has_evaluation=False, bad_loss=22))
    assert (termination.exit_code, termination.reason) == (65, "BadData")
    assert termination.message == (
        "The loss became infinite or not a number in step 5, in the batch of toy.jsonl, row 6."
    )
    assert "optimization.learningRate" in termination.advice
    assert [one.name for one in termination.checkpoints] == ["step-3-e1"]


def test_nan_evaluation_ends_run(tmp_path: Path) -> None:
    termination = train_toy(run_config(tmp_path), ToyTask(evaluations=[0.5, float("nan")]))
    assert (termination.exit_code, termination.step) == (65, 6)
    assert [one.name for one in termination.checkpoints] == ["step-3-e1"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_volume_fails_during_save(tmp_path: Path, number: int) -> None:
    def full(call: int) -> None:
        if call == 2:
            raise OSError(number, "no")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Files, "fsync_tree", Files.fsync_tree)
        count_calls("fsync_tree", full)
        termination = train_toy(run_config(tmp_path), ToyTask())
    assert (termination.exit_code, termination.reason) == (73, "StorageFailed")
    assert str(tmp_path) in termination.message
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["index.json", "step-3-e1"]


def test_volume_is_too_full_for_the_log(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    termination = train_toy(run_config(tmp_path), ToyTask())
    assert (termination.exit_code, termination.reason) == (73, "StorageFailed")


@pytest.mark.parametrize("where", ["fsync_tree", "loss"])
def test_superseded_trainer_commits_nothing(tmp_path: Path, where: str) -> None:
    def supersede(call: int) -> None:
        if call == 2:
            (tmp_path / "owner/7.json").write_text("")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Files, "fsync_tree", Files.fsync_tree)
        if where == "fsync_tree":
            count_calls("fsync_tree", supersede)
        termination = train_toy(run_config(tmp_path), ToyTask(hooks={where: supersede}))
    assert (termination.exit_code, termination.reason) == (80, "Superseded")
    assert not (tmp_path / "checkpoints/step-6-e1").exists()


def test_gpu_memory_is_too_small(tmp_path: Path) -> None:
    def fail(_call: int) -> None:
        raise torch.cuda.OutOfMemoryError

    termination = train_toy(run_config(tmp_path), ToyTask(hooks={"loss": fail}))
    assert (termination.exit_code, termination.reason) == (79, "OutOfGPUMemory")
    assert "batchSize" in termination.advice


def test_unexpected_error_logs_traceback_and_reports_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_call: int) -> None:
        raise KeyError("boom")

    termination = train_toy(run_config(tmp_path), ToyTask(hooks={"loss": fail}))
    assert termination.exit_code == 70
    assert termination.message == "The trainer failed unexpectedly: KeyError: 'boom'"
    assert "Traceback" in (tmp_path / "log.jsonl").read_text()
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            {"optimization": {"learningRate": 0.02}},
            "optimization.learningRate was 0.01 when this run began and is 0.02 now.",
            id="another learning rate",
        ),
        pytest.param(
            {"method": "lora"}, 'method was "full" when this run began and is "lora" now.', id="another method"
        ),
    ],
)
def test_changed_settings_are_refused_on_resume(tmp_path: Path, change: dict[str, object], message: str) -> None:
    interrupt(tmp_path)
    termination = train_toy(run_config(tmp_path, **change), ToyTask())
    assert (termination.exit_code, termination.message) == (65, message)
    assert termination.step == 4


def test_settings_without_effect_on_weights_may_change(tmp_path: Path) -> None:
    interrupt(tmp_path)
    config = run_config(tmp_path, optimization={"loggingSteps": 1}, checkpoints={"everySteps": 4, "keep": 1})
    assert train_toy(config, ToyTask()).exit_code == 0


def test_changed_data_is_refused_on_resume(tmp_path: Path) -> None:
    interrupt(tmp_path)
    termination = train_toy(run_config(tmp_path), ToyTask(data=ToyData(fingerprint="0" * 64)))
    assert termination.exit_code == 65
    assert "first 4 steps" in termination.message


def test_missing_gpu_is_refused(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        assert choose_device(1).type == "cuda"
    else:
        with pytest.raises(ConfigurationError, match="gpus is 1, but no CUDA device"):
            choose_device(1)


def interrupt(run_directory: Path) -> None:
    """Make four steps and stop."""
    stop = StopFlag()
    train_toy(run_config(run_directory), ToyTask(hooks={"loss": at(18, stop.request)}), stop)


NO_LONGER_FALLING = [0.5, 0.4, 0.6, 0.41, 0.39, 0.3]


def early_stopping(evaluations: int) -> dict[str, Any]:
    evaluation = {"everySteps": 2, "earlyStopping": {"patience": evaluations}}
    return {"evaluation": evaluation, "dataset": {"validation": {"fraction": 0.1}}}


def test_early_stop_exports_best_checkpoint(tmp_path: Path) -> None:
    config = run_config(tmp_path, **early_stopping(2))
    termination = train_toy(config, ToyTask(evaluations=NO_LONGER_FALLING))
    assert (termination.exit_code, termination.step, termination.total_steps) == (0, 8, 12)
    wanted = "Trained 8 steps of 12: evalLoss has not fallen below 0.4 in 2 evaluations (evaluation.earlyStopping);"
    assert termination.message.startswith(wanted)
    [best] = [one for one in termination.checkpoints if one.best]
    assert best.step == 4
    weights = tmp_path / f"checkpoints/{best.name}/weights/model.safetensors"
    assert (tmp_path / "exports/model/model.safetensors").read_bytes() == weights.read_bytes()


def test_longer_early_stopping_runs_to_the_end(tmp_path: Path) -> None:
    config = run_config(tmp_path, **early_stopping(3))
    termination = train_toy(config, ToyTask(evaluations=NO_LONGER_FALLING))
    assert (termination.step, termination.message.split(";")[0]) == (12, "Trained 12 steps")


@pytest.mark.parametrize("at_loss", [14, 22, 26])
def test_interrupted_run_stops_early_at_same_step(tmp_path: Path, at_loss: int) -> None:
    changes = {**early_stopping(2), "checkpoints": {"everySteps": 5}}
    whole = train_toy(run_config(tmp_path / "whole", **changes), ToyTask(evaluations=NO_LONGER_FALLING))
    stop, run = StopFlag(), tmp_path / "resumed"
    interrupted = train_toy(
        run_config(run, **changes),
        ToyTask(evaluations=NO_LONGER_FALLING, hooks={"loss": at(at_loss, stop.request)}),
        stop,
    )
    assert interrupted.exit_code == 75
    done = sum("evalLoss" in line for line in metric_lines(run))
    resumed = train_toy(run_config(run, **changes), ToyTask(evaluations=NO_LONGER_FALLING[done:]))
    assert (resumed.step, resumed.message.split(";")[0]) == (8, whole.message.split(";")[0])
    final = "exports/model/model.safetensors"
    assert (run / final).read_bytes() == (tmp_path / "whole" / final).read_bytes()
