"""Trainers forked from a process that has imported all modules, so that an attempt only loads the tiny model."""

import mmap
import os
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.campaign.instants import STEPS, WRITER, Instant, current_thread, every_instant
from tests.campaign.rendezvous import Rendezvous
from tests.unit.trainer import tiny
from trainyard_crds.constants import TERMINATION_LOG_ENV
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.checkpoint.manifest import Checkpoint
from trainyard_trainer.checkpoint.store import CheckpointStore, Draft
from trainyard_trainer.checkpoint.writer import Writer
from trainyard_trainer.cli import run_command
from trainyard_trainer.engine.async_checkpointer import AsyncCheckpointer
from trainyard_trainer.report.reporter import Reporter
from trainyard_trainer.stop import StopFlag

INTERVAL = 3
"""checkpoints.everySteps."""


@dataclass(frozen=True)
class Material:
    """A tiny model and training rows."""

    model: Path
    rows: Path

    @classmethod
    def make(cls, directory: Path) -> "Material":
        """Create them in a child process: training a tokenizer leaves threads behind, with which forking is unsafe."""
        directory.mkdir(parents=True, exist_ok=True)
        rows = tiny.write_rows(directory / "rows.jsonl", tiny.questions(24))
        pid = os.fork()
        if pid == 0:
            tiny.save_tiny_model(directory / "model")
            os._exit(0)
        _pid, status = os.waitpid(pid, 0)
        assert status == 0, "the tiny model could not be made"
        return cls(directory / "model", rows)

    def config(self, run_directory: Path, method: str) -> RunConfig:
        """Return a config with 10 steps, saved every 3 and evaluated every 5; keeps one checkpoint and the best."""
        return RunConfig.model_validate(
            {
                "runDirectory": str(run_directory),
                "task": "llm",
                "method": method,
                "model": {"source": f"file://{self.model}"},
                "dataset": {"source": f"file://{self.rows}", "validation": {"fraction": 0.2}},
                "optimization": {
                    "precision": "fp32",
                    "learningRate": 0.005,
                    "epochs": 2,
                    "maxSteps": 10,
                    "batchSize": 1,
                    "gradientAccumulation": 2,
                    "loggingSteps": 1,
                },
                "adapter": None if method == "full" else {"rank": 4, "dropout": 0.1},
                "llm": {"maxLength": 64, "packing": False},
                "evaluation": {"everySteps": 5, "baseline": True},
                "checkpoints": {"everySteps": INTERVAL, "keep": 1},
            }
        )


class Shared:
    """Counters in memory shared with a trainer."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 32)

    @property
    def step(self) -> int:
        """Finished steps of the trainer."""
        return self._get(0)

    @step.setter
    def step(self, value: int) -> None:
        self._set(0, value)

    @property
    def in_flight(self) -> int:
        """Step of the checkpoint in flight: handed to the writer and not yet published; 0 if there is none."""
        return self._get(1)

    @in_flight.setter
    def in_flight(self, value: int) -> None:
        self._set(1, value)

    def instants(self, thread: str) -> int:
        """Return the number of instants that a thread has passed."""
        return self._get(_COUNTERS[thread])

    def pass_instant(self, thread: str) -> int:
        """Count an instant and return its number, from 0; each thread has its own counter."""
        number = self.instants(thread)
        self._set(_COUNTERS[thread], number + 1)
        return number

    def _get(self, index: int) -> int:
        return int(struct.unpack_from("q", self._memory, 8 * index)[0])

    def _set(self, index: int, value: int) -> None:
        struct.pack_into("q", self._memory, 8 * index, value)


_COUNTERS = {STEPS: 2, WRITER: 3}


class Trainer:
    """A forked trainer."""

    def __init__(self, config: RunConfig, *, send: signal.Signals | None = None, at: Instant | None = None) -> None:
        """Fork the trainer, which sends itself the signal `send` at the instant `at`."""
        self.shared = Shared()
        self.run_directory = Path(config.run_directory)
        assert len(list(Path("/proc/self/task").iterdir())) == 1, "a process with threads cannot be forked safely"
        sys.stdout.flush()
        # Block SIGTERM until the handler is installed: unlike for PID 1 of a container, its default action is to exit.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        self.pid = os.fork()
        if self.pid == 0:
            _train(config, self.shared, send, at)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        self._code: int | None = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if the trainer has not exited."""
        if self._code is None:
            os.kill(self.pid, number)

    def stopped_or_ended(self) -> bool:
        """Wait until the trainer is stopped (return True) or has exited (return False)."""
        _pid, status = os.waitpid(self.pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            return True
        self._code = os.waitstatus_to_exitcode(status)
        return False

    def wait(self) -> int:
        """Wait for the trainer and return its exit code, negative for a signal."""
        while self._code is None:
            self.stopped_or_ended()
        return self._code


def set_up_as_pod(config: RunConfig) -> None:
    """Set the command line of a pod in a forked child, and redirect its output to a file next to the run directory."""
    here = Path(config.run_directory).parent
    output = os.open(here / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    path = here / "run.json"
    path.write_text(config.model_dump_json(by_alias=True, exclude_none=True))
    os.environ[TERMINATION_LOG_ENV] = str(here / f"termination-{os.getpid()}")
    sys.argv = ["trainyard-trainer", "train", "--config", str(path)]


def _train(config: RunConfig, shared: Shared, send: signal.Signals | None, at: Instant | None) -> None:
    """Run the command line as a pod does, in a forked child; never returns."""
    code = 99
    try:
        set_up_as_pod(config)
        rendezvous = Rendezvous(at.lead if at else None)
        _track_steps(shared, rendezvous)
        _track_saves(shared, rendezvous)
        stop = StopFlag()
        stop.install()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        with every_instant(_signal_at_instant(shared, send, at, rendezvous)):
            code = run_command(stop)
    except BaseException:  # noqa: BLE001 - a forked child must not continue in its parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _signal_at_instant(
    shared: Shared, send: signal.Signals | None, at: Instant | None, rendezvous: Rendezvous
) -> Callable[[str], None]:
    def tick(instant: str) -> None:
        thread = current_thread()
        number = shared.pass_instant(thread)
        if send is not None and at is not None and (thread, number) == (at.thread, at.number):
            with rendezvous.writer_paused(shared.in_flight):
                os.write(2, f"{send.name} {instant} (instant {at})\n".encode())
                os.kill(os.getpid(), send)

    return tick


def _track_saves(shared: Shared, rendezvous: Rendezvous) -> None:
    saved_steps: list[int] = []
    save, start, collect, publish = AsyncCheckpointer.save, Writer.start, Writer.collect, CheckpointStore.save

    def record_step(saver: AsyncCheckpointer, draft: Draft, **rest: Any) -> None:
        saved_steps.append(draft.step)
        save(saver, draft, **rest)

    def record_start(writer: Writer[Any], job: Callable[[], Any]) -> None:
        shared.in_flight = saved_steps[-1]
        start(writer, job)

    def wait(writer: Writer[Any], *, wait: bool) -> Any:
        with rendezvous.training_waits() if wait else nullcontext():
            return collect(writer, wait=wait)

    def published(store: CheckpointStore, draft: Draft, write: Callable[[Path, Path], None]) -> Checkpoint:
        checkpoint = publish(store, draft, write)
        shared.in_flight = 0
        return checkpoint

    for owner, name, replacement in (
        (AsyncCheckpointer, "save", record_step),
        (Writer, "start", record_start),
        (Writer, "collect", wait),
        (CheckpointStore, "save", published),
    ):
        setattr(owner, name, replacement)


def _track_steps(shared: Shared, rendezvous: Rendezvous) -> None:
    original = Reporter.step_done

    def step_done(reporter: Reporter, *, step: int, epoch: float, items: int) -> None:
        shared.step = step
        rendezvous.step_made(step)
        original(reporter, step=step, epoch=epoch, items=items)

    Reporter.step_done = step_done  # type: ignore[method-assign,assignment] # mypy takes it for bound
