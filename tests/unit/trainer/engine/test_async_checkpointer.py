"""The asynchronous checkpointer with a store of controlled speed."""

from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event, Lock
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.unit.timeouts import TIMEOUT, wait_until
from tests.unit.trainer.checkpoint.support import draft
from trainyard_crds.report import CheckpointStatus, Stage
from trainyard_trainer.checkpoint.manifest import Checkpoint
from trainyard_trainer.checkpoint.store import Draft
from trainyard_trainer.engine.async_checkpointer import AsyncCheckpointer
from trainyard_trainer.engine.grace import GracePeriodMonitor
from trainyard_trainer.errors import StorageError
from trainyard_trainer.report.reporter import Reporter


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def monotonic(self) -> float:
        return self.time

    def now(self) -> str:
        return "t"


class SlowStore:
    """Every save waits at `gate` before it writes anything."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.gate = Event()
        self.published: list[int] = []
        self.error: Exception | None = None
        self.takes: Callable[[], None] = lambda: None
        self._alone = Lock()

    def save(self, draft: Draft, write: Callable[[Path, Path], None]) -> Checkpoint:
        assert self._alone.acquire(blocking=False), "two saves at once"
        try:
            assert self.gate.wait(TIMEOUT)
            self.takes()
            if self.error:
                raise self.error
            directory = self.directory / f"step-{draft.step}-e1"
            (directory / "weights").mkdir(parents=True)
            (directory / "state").mkdir()
            write(directory / "weights", directory / "state")
            self.published.append(draft.step)
            return cast("Checkpoint", SimpleNamespace(name=directory.name))
        finally:
            self._alone.release()

    def statuses(self) -> list[CheckpointStatus]:
        return cast("list[CheckpointStatus]", [*self.published])

    def weights_of(self, step: int) -> Tensor:
        return load_file(self.directory / f"step-{step}-e1/weights/w.safetensors")["w"]

    def moments_of(self, step: int) -> Tensor:
        return load_file(self.directory / f"step-{step}-e1/state/tensors.safetensors")["m"]


class RecordingReporter:
    """Records reports; `at_stage` is called when the checkpointer starts to wait."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.at_stage: Callable[[Stage], object] = lambda stage: None
        self.metrics_log = SimpleNamespace(sync=lambda: self.events.append("metrics synced"))

    def stage(self, stage: Stage) -> None:
        self.at_stage(stage)

    def log(self, kind: str, message: str) -> None:
        self.events.append(message)

    def warn(self, reason: str, message: str) -> None:
        self.events.append(reason)

    def checkpoints(self, statuses: list[CheckpointStatus]) -> None:
        self.events.append(statuses)


class Bench:
    def __init__(self, directory: Path) -> None:
        self.store, self.reporter, self.clock = SlowStore(directory), RecordingReporter(), Clock()
        self.checkpointer = AsyncCheckpointer(
            store=self.store,
            write_weights=write_weights,
            reporter=cast("Reporter", self.reporter),
            clock=self.clock,
            grace=GracePeriodMonitor(30),
        )
        self.weights, self.moments = torch.zeros(3), torch.zeros(3)

    def save(self, step: int) -> None:
        """Save a state that is `step` everywhere."""
        for tensor in (self.weights, self.moments):
            tensor.fill_(step)
        document: dict[str, Any] = {"step": step}
        self.checkpointer.save(draft(step), weights={"w": self.weights}, state={"m": self.moments}, document=document)


def write_weights(weights: Mapping[str, Tensor], directory: Path) -> None:
    save_file(dict(weights), directory / "w.safetensors")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_training_continues_and_checkpoint_is_of_its_own_step(bench: Bench) -> None:
    bench.save(3)
    for tensor in (bench.weights, bench.moments):
        tensor.fill_(4)
    bench.checkpointer.poll()
    assert bench.reporter.events == []
    bench.store.gate.set()
    bench.checkpointer.flush()
    assert bench.store.weights_of(3).tolist() == [3, 3, 3]
    assert bench.store.moments_of(3).tolist() == [3, 3, 3]
    assert bench.reporter.events == ["metrics synced", "Saved step-3-e1.", [3]]
    bench.checkpointer.close()


def test_second_save_waits_for_the_first(bench: Bench) -> None:
    stages: list[Stage] = []

    def begin_to_wait(stage: Stage) -> None:
        stages.append(stage)
        bench.store.gate.set()

    bench.reporter.at_stage = begin_to_wait
    bench.save(3)
    bench.save(6)
    assert stages == [Stage.SAVING, Stage.TRAINING]
    assert bench.store.published[0] == 3
    assert bench.checkpointer.saved_step == 6
    bench.checkpointer.flush()
    assert bench.store.published == [3, 6]
    assert [bench.store.weights_of(step)[0].item() for step in (3, 6)] == [3, 6]
    bench.checkpointer.close()


@pytest.mark.parametrize("call", ["poll", "flush", "save"])
def test_thread_error_is_raised_in_training_thread(bench: Bench, call: str) -> None:
    bench.store.error = StorageError("The volume is full.")
    bench.save(3)
    bench.store.gate.set()
    wait_until(lambda: not bench.checkpointer._writer.is_busy)
    with pytest.raises(StorageError, match="is full"):
        bench.save(6) if call == "save" else getattr(bench.checkpointer, call)()
    bench.checkpointer.close()
    assert bench.reporter.events == []


def test_close_reports_checkpoint_in_flight(bench: Bench) -> None:
    bench.save(3)
    bench.store.gate.set()
    bench.checkpointer.close()
    assert bench.reporter.events[-1] == [3]


def test_close_suppresses_thread_error(bench: Bench) -> None:
    bench.store.error = StorageError("The volume is full.")
    bench.save(3)
    bench.store.gate.set()
    bench.checkpointer.close()
    assert bench.reporter.events == []


def test_time_to_publish_counts_against_grace_period(bench: Bench) -> None:
    def take_16_seconds() -> None:
        bench.clock.time += 16

    bench.store.takes = take_16_seconds
    bench.save(3)
    assert bench.checkpointer.seconds_since_save == 0
    bench.store.gate.set()
    bench.checkpointer.flush()
    assert "GracePeriodTooShort" in bench.reporter.events
    assert bench.checkpointer.seconds_since_save == 16
    bench.checkpointer.close()
