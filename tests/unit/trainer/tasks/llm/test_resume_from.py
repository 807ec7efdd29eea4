"""A new run begins at a checkpoint of another one (resumeFrom)."""

import errno
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer import tiny
from tests.unit.trainer.tasks.llm.runs import config, exported, train
from tests.unit.trainer.toy import metric_lines
from trainyard_crds.report import Outcome, Termination
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.checkpoint.files import to_storage_error

OPTIMIZATION = {"precision": "fp32", "learningRate": 0.005, "epochs": 2, "gradientAccumulation": 3}


def new_run(tmp_path: Path, model: Path, name: str, resumed: dict[str, Any], **blocks: Any) -> RunConfig:
    source = {"runDirectory": str(tmp_path / "old"), **resumed}
    return config(tmp_path, model, name, "lora", resumeFrom=source, **blocks)


@pytest.fixture
def interrupted(tmp_path: Path, tiny_model: Path) -> Termination:
    """A run that was saved and stopped, as one that failed with a full volume leaves it."""
    termination = train(config(tmp_path, tiny_model, "old", "lora"), interrupted_at=14)
    assert termination.outcome is Outcome.INTERRUPTED
    return termination


def test_a_new_run_continues_with_the_same_bits(tmp_path: Path, tiny_model: Path, interrupted: Termination) -> None:
    before = {path: path.read_bytes() for path in (tmp_path / "old").rglob("*") if path.is_file()}
    whole = config(tmp_path, tiny_model, "whole", "lora")
    new = new_run(tmp_path, tiny_model, "new", {})
    reference = train(whole)
    # The first start is stopped at once: the checkpoint is the new run's own from then on.
    assert train(new, interrupted_at=1).message.endswith(f"step-{interrupted.step}-e1.")
    (tmp_path / "old").rename(tmp_path / "gone")
    finished = train(new)
    assert (finished.outcome, finished.step) == (Outcome.FINISHED, reference.step)
    assert exported(new) == exported(whole)
    assert metric_lines(tmp_path / "new") == [
        line for line in metric_lines(tmp_path / "whole") if line["step"] > interrupted.step
    ]
    assert {path: (tmp_path / "gone" / path.relative_to(tmp_path / "old")).read_bytes() for path in before} == before


def test_more_epochs_and_another_rate_continue_a_finished_run(tmp_path: Path, tiny_model: Path) -> None:
    done = train(config(tmp_path, tiny_model, "old", "lora"))
    refused = train(new_run(tmp_path, tiny_model, "same", {}))
    assert refused.exit_code == 64
    assert refused.message.endswith(f"is at step {done.step}, and this run ends at step {done.step}.")
    changed = {**OPTIMIZATION, "epochs": 3, "learningRate": 0.001, "scheduler": "constant"}
    longer = train(new_run(tmp_path, tiny_model, "longer", {}, optimization=changed))
    assert (longer.outcome, longer.step) == (Outcome.FINISHED, done.step * 3 // 2)


@pytest.mark.parametrize(
    "case",
    [
        ("continue", {"optimization": {**OPTIMIZATION, "batchSize": 2}}, "optimization.batchSize was 1 in the run of"),
        ("continue", {"adapter": {"rank": 8, "dropout": 0.1}}, "adapter.rank was 4 in the run of"),
        ("weights", {"adapter": {"rank": 8, "dropout": 0.1}}, "adapter.rank was 4 in the run of"),
    ],
    ids=["batch size", "rank", "rank with weights"],
)
def test_settings_that_do_not_fit_are_refused(
    tmp_path: Path, tiny_model: Path, interrupted: Termination, case: tuple[str, Any, str]
) -> None:
    mode, blocks, sentence = case
    termination = train(new_run(tmp_path, tiny_model, "new", {"mode": mode}, **blocks))
    assert termination.exit_code == 64
    assert termination.message.startswith(f"resumeFrom: {sentence} step-{interrupted.step}-e1 of {tmp_path}/old and is")


def test_other_rows_need_the_mode_weights(tmp_path: Path, tiny_model: Path, interrupted: Termination) -> None:
    new = new_run(tmp_path, tiny_model, "new", {})
    tiny.write_rows(tmp_path / "rows.jsonl", tiny.questions(30, start=100))
    refused = train(new)
    assert refused.exit_code == 65
    assert "resumeFrom.mode: weights" in refused.advice
    weights = new_run(tmp_path, tiny_model, "weights", {"mode": "weights"}, llm={"maxLength": 48, "packing": True})
    tiny.write_rows(tmp_path / "rows.jsonl", tiny.questions(30, start=100))
    termination = train(weights)
    assert termination.outcome is Outcome.FINISHED
    baseline = metric_lines(tmp_path / "weights")[0]
    assert baseline["step"] == 0
    assert baseline["baselineEvalLoss"] < metric_lines(tmp_path / "old")[0]["baselineEvalLoss"]  # of the checkpoint


def test_a_checkpoint_by_name_or_the_best_one(tmp_path: Path, tiny_model: Path, interrupted: Termination) -> None:
    first = interrupted.checkpoints[0].name
    named = train(new_run(tmp_path, tiny_model, "named", {"checkpoint": first}), interrupted_at=1)
    assert named.checkpoints[0].step == interrupted.checkpoints[0].step
    best = next(one for one in interrupted.checkpoints if one.best)
    chosen = train(new_run(tmp_path, tiny_model, "best", {"checkpoint": "best"}), interrupted_at=1)
    assert chosen.checkpoints[0].step == best.step
    missing = train(new_run(tmp_path, tiny_model, "missing", {"checkpoint": "step-999-e1"}))
    assert missing.exit_code == 66
    assert f"has no complete checkpoint 'step-999-e1' (it has: step-{interrupted.step}-e1," in missing.message


def test_a_damaged_checkpoint_is_not_used(tmp_path: Path, tiny_model: Path, interrupted: Termination) -> None:
    newest, older = interrupted.checkpoints[-1], interrupted.checkpoints[-2]
    weights = next((tmp_path / "old" / "checkpoints" / newest.name / "weights").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    termination = train(new_run(tmp_path, tiny_model, "new", {}), interrupted_at=1)
    assert termination.checkpoints[0].step == older.step


def test_a_directory_without_a_run_is_not_found(tmp_path: Path, tiny_model: Path) -> None:
    termination = train(new_run(tmp_path, tiny_model, "new", {}))
    assert termination.exit_code == 66
    assert "is not the directory of a run" in termination.message


def test_messages_name_the_run_by_its_uri(tmp_path: Path, tiny_model: Path) -> None:
    termination = train(new_run(tmp_path, tiny_model, "new", {"runUri": "pvc://old/trainyard/old-1"}))
    assert termination.message == "resumeFrom: pvc://old/trainyard/old-1 is not the directory of a run."


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_advice_for_a_volume_names_the_way_to_continue(tmp_path: Path, number: int) -> None:
    error = to_storage_error(OSError(number, "no"), tmp_path)
    assert error is not None
    assert error.advice.endswith("a new TrainingJob with spec.resumeFrom continues from the last checkpoint.")
