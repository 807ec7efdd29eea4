"""Checkpoints written by a thread during training, and checkpoints by minutes."""

import errno
import gc
import json
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from tests.unit.timeouts import TIMEOUT, wait_until
from tests.unit.trainer.clocks import FakeClock
from tests.unit.trainer.toy import Killed, ToyBatch, ToyData, ToyTask, exported, metric_lines, run_config, train_toy
from trainyard_trainer import bootstrap
from trainyard_trainer.checkpoint.writer import Writer
from trainyard_trainer.stop import StopFlag


def at(number: int, action: Callable[[], object]) -> Callable[[int], None]:
    def strike(call: int) -> None:
        if call == number:
            action()

    return strike


def saved(run_directory: Path) -> list[tuple[str, int]]:
    """Return the reports of saved checkpoints, and the step of the run at that time."""
    events = [json.loads(line) for line in (run_directory / "log.jsonl").read_text().splitlines()]
    return [(event["message"], event["step"]) for event in events if event["type"] == "CheckpointSaved"]


def test_steps_run_while_checkpoint_is_written(tmp_path: Path) -> None:
    in_step_5 = Event()

    def write_slowly(_call: int) -> None:
        assert in_step_5.wait(TIMEOUT), "the steps wait for the writer"

    task = ToyTask(has_evaluation=False, hooks={"save_weights": write_slowly, "loss": at(16, in_step_5.set)})
    assert train_toy(run_config(tmp_path), task).exit_code == 0
    message, step = saved(tmp_path)[0]
    assert message == "Saved step-3-e1."
    assert step >= 5


def test_stop_publishes_checkpoint_in_flight_then_last_one(tmp_path: Path) -> None:
    stop, stopped = StopFlag(), Event()

    def request() -> None:
        stop.request()
        stopped.set()

    def write_slowly(_call: int) -> None:
        assert stopped.wait(TIMEOUT)

    task = ToyTask(hooks={"save_weights": write_slowly, "loss": at(18, request)})
    termination = train_toy(run_config(tmp_path), task, stop)
    assert termination.exit_code == 75
    assert [one.name for one in termination.checkpoints] == ["step-3-e1", "step-4-e1"]


def test_failed_checkpoint_ends_run_at_next_save(tmp_path: Path) -> None:
    termination = train_toy(run_config(tmp_path), ToyTask(hooks={"save_weights": at(2, refuse)}))
    assert (termination.exit_code, termination.reason) == (73, "StorageFailed")
    assert termination.message == f"The volume of {tmp_path} is full."
    assert termination.step in range(6, 10)
    assert [one.name for one in termination.checkpoints] == ["step-3-e1"]


def refuse() -> None:
    raise OSError(errno.ENOSPC, "no")


def test_stop_with_failed_checkpoint_is_not_reported_as_saved(tmp_path: Path) -> None:
    stop = StopFlag()
    task = ToyTask(hooks={"loss": at(18, stop.request), "save_weights": at(2, refuse)})
    termination = train_toy(run_config(tmp_path), task, stop)
    assert (termination.exit_code, termination.reason) == (73, "StorageFailed")
    assert [one.name for one in termination.checkpoints] == ["step-3-e1"]


def test_failed_write_ends_run_at_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writers: list[Writer[Any]] = []
    start = Writer.start

    def start_and_remember(writer: Writer[Any], job: Callable[[], Any]) -> None:
        writers.append(writer)
        start(writer, job)

    def wait_for_the_writer() -> None:
        wait_until(lambda: not writers[0].is_busy)

    monkeypatch.setattr(Writer, "start", start_and_remember)
    # The ninth step begins with micro-batch 29, after a save at the eighth.
    hooks = {"save_weights": at(1, refuse), "loss": at(29, wait_for_the_writer)}
    config = run_config(tmp_path, checkpoints={"everySteps": 8})
    termination = train_toy(config, ToyTask(has_evaluation=False, hooks=hooks))
    assert (termination.exit_code, termination.step) == (73, 9)


def test_run_ended_by_full_volume_keeps_no_file_open(tmp_path: Path) -> None:
    stop = StopFlag()
    train_toy(run_config(tmp_path), ToyTask(hooks={"loss": at(18, stop.request)}), stop)
    gc.disable()
    try:
        assert train_toy(run_config(tmp_path), ToyTask(hooks={"save_weights": at(1, refuse)})).exit_code == 73
        assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    finally:
        gc.enable()


class RecordedData(ToyData):
    """Remembers which micro-batches were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, int]] = []

    def micro_batch(self, epoch: int, index: int) -> ToyBatch:
        self.asked.append((epoch, index))
        return super().micro_batch(epoch, index)


def test_run_saved_by_minutes_resumes_at_exact_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    monkeypatch.setattr(bootstrap, "SystemClock", lambda: clock)
    checkpoints = {"everySteps": 1000, "everyMinutes": 1, "keep": 20}
    data = {name: RecordedData() for name in ("whole", "killed", "resumed")}

    def start(name: str, directory: Path, killed_at: int = 0) -> None:
        def micro_step(call: int) -> None:
            clock.pass_seconds(13)
            if call == killed_at:
                raise Killed

        task = ToyTask(has_evaluation=False, data=data[name], hooks={"loss": micro_step})
        train_toy(run_config(directory, checkpoints=checkpoints), task)

    start("whole", tmp_path / "whole")
    # A pass has steps of 4, 4 and 2 micro-batches, so of 52, 52 and 26 seconds.
    assert [message for message, _ in saved(tmp_path / "whole")] == [
        f"Saved step-{step}-e1." for step in (2, 4, 6, 8, 10, 12)
    ]
    with pytest.raises(Killed):
        start("killed", tmp_path / "run", killed_at=28)
    start("resumed", tmp_path / "run")
    assert "Resumed from step-6-e1." in (tmp_path / "run/log.jsonl").read_text()
    whole, resumed = data["whole"].asked, data["resumed"].asked
    assert resumed == whole[-len(resumed) :]
    assert resumed[0] == (2, 0)
    assert exported(tmp_path / "run") == exported(tmp_path / "whole")
    assert metric_lines(tmp_path / "run") == metric_lines(tmp_path / "whole")
