"""Interrupted training of a language model ends with the bits of uninterrupted training."""

import json
import shutil
from datetime import date
from pathlib import Path

import pytest
from torch import Tensor

from tests.unit.trainer import tiny
from tests.unit.trainer.clocks import FakeClock
from tests.unit.trainer.definitions import replace_llm
from tests.unit.trainer.tasks.llm.runs import config, exported, train
from tests.unit.trainer.toy import Killed, metric_lines
from trainyard_crds.report import Outcome
from trainyard_trainer import bootstrap
from trainyard_trainer.engine.task import Loaded, MicroBatch
from trainyard_trainer.stop import StopFlag
from trainyard_trainer.tasks.llm import rows
from trainyard_trainer.tasks.llm.task import LlmTask


@pytest.mark.parametrize(
    ("method", "packing"), [("lora", True), ("qlora", True), ("full", True), ("lora", False)], ids=str
)
def test_interrupted_runs_end_with_same_bits(tmp_path: Path, tiny_model: Path, method: str, packing: bool) -> None:
    whole = config(tmp_path, tiny_model, "whole", method, packing)
    assert train(whole).outcome is Outcome.FINISHED
    resumed = config(tmp_path, tiny_model, "resumed", method, packing)
    assert train(resumed, interrupted_at=7).outcome is Outcome.INTERRUPTED
    assert train(resumed, interrupted_at=5).outcome is Outcome.INTERRUPTED
    assert (Path(resumed.run_directory) / "cache").exists()
    assert train(resumed).outcome is Outcome.FINISHED
    assert not (Path(resumed.run_directory) / "cache").exists()
    assert exported(resumed) == exported(whole)
    lines = metric_lines(Path(whole.run_directory))
    assert metric_lines(Path(resumed.run_directory)) == lines
    losses = [line["evalLoss"] for line in lines if "evalLoss" in line]
    assert losses[-1] < losses[0]


def test_resume_with_other_rows_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    run = config(tmp_path, tiny_model, "run", "lora")
    assert train(run, interrupted_at=7).outcome is Outcome.INTERRUPTED
    tiny.write_rows(tmp_path / "rows.jsonl", tiny.questions(39))
    termination = train(run)
    assert termination.exit_code == 65
    assert termination.outcome is Outcome.FAILED


def test_a_resumed_run_skips_the_same_rows(tmp_path: Path, tiny_model: Path) -> None:
    run = config(tmp_path, tiny_model, "run", "lora")
    run = run.model_copy(update={"dataset": run.dataset.model_copy(update={"on_invalid_row": "skip"})})
    tiny.write_rows(tmp_path / "rows.jsonl", [{"messages": 7}, *tiny.questions(40)])
    interrupted = train(run, interrupted_at=7)
    shutil.rmtree(Path(run.run_directory) / "cache")
    finished = train(run)
    assert (interrupted.outcome, finished.outcome) == (Outcome.INTERRUPTED, Outcome.FINISHED)
    assert finished.invalid_rows is not None
    assert (finished.invalid_rows.count, finished.invalid_rows) == (1, interrupted.invalid_rows)
    assert finished.invalid_rows.first[0].row.endswith("rows.jsonl, row 1")


DATED = tiny.MARKED_TEMPLATE + "{{ strftime_now('%d %b %Y') }}"


def test_a_run_resumes_on_another_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.save_tiny_model(tmp_path / "dated", DATED)
    run = config(tmp_path, model, "run", "lora")
    monkeypatch.setattr(rows, "today", lambda: date(2026, 1, 31))
    assert train(run, interrupted_at=7).outcome is Outcome.INTERRUPTED
    shutil.rmtree(Path(run.run_directory) / "cache")
    monkeypatch.setattr(rows, "today", lambda: date(2026, 2, 1))
    assert train(run).outcome is Outcome.FINISHED
    assert json.loads((Path(run.run_directory) / "resolved.json").read_text())["date"] == "2026-01-31"


class TickingTask(LlmTask):
    """Half a minute passes in every micro-batch; dies at one of them."""

    def __init__(self, clock: FakeClock, dies_at: int | None = None) -> None:
        self._clock = clock
        self._left = dies_at

    def loss(self, loaded: Loaded, batch: MicroBatch) -> Tensor:
        self._clock.pass_seconds(30)
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                raise Killed
        return super().loss(loaded, batch)


def test_run_saved_by_minutes_and_killed_ends_with_same_bits(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    monkeypatch.setattr(bootstrap, "SystemClock", lambda: clock)
    tasks = iter(
        [TickingTask(clock), TickingTask(clock, dies_at=11), TickingTask(clock, dies_at=2), TickingTask(clock)]
    )
    replace_llm(lambda: next(tasks), monkeypatch)
    by_the_clock = {"everySteps": 1000, "everyMinutes": 2}
    whole, killed = (
        config(tmp_path, tiny_model, name, "lora", checkpoints=by_the_clock) for name in ("whole", "killed")
    )
    assert bootstrap.train(whole, stop=StopFlag(), environ={}).outcome is Outcome.FINISHED
    for _ in range(2):
        with pytest.raises(Killed):
            bootstrap.train(killed, stop=StopFlag(), environ={})
    assert bootstrap.train(killed, stop=StopFlag(), environ={}).outcome is Outcome.FINISHED
    assert "Resumed from step-" in Path(killed.run_directory, "log.jsonl").read_text()
    assert exported(killed) == exported(whole)
    assert metric_lines(Path(killed.run_directory)) == metric_lines(Path(whole.run_directory))
