"""Trainers forked from a process that has imported everything: a start costs a load of the tiny model."""

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
from tests.campaign.rendezvous import Meeting
from tests.unit.trainer import tiny
from trainyard_crds.constants import TERMINATION_LOG_ENV
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.checkpoint.manifest import Checkpoint
from trainyard_trainer.checkpoint.store import CheckpointStore, Draft
from trainyard_trainer.checkpoint.writer import Writer
from trainyard_trainer.cli import run_command
from trainyard_trainer.engine.async_checkpointer import Saver
from trainyard_trainer.report.reporter import Reporter
from trainyard_trainer.stop import StopFlag

INTERVAL = 3
"""checkpoints.everySteps."""


@dataclass(frozen=True)
class Material:
    """A tiny model and rows to train it on."""

    model: Path
    rows: Path

    @classmethod
    def make(cls, directory: Path) -> "Material":
        """In a process of its own: training a tokenizer leaves threads behind, and those must not be forked."""
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
        """10 steps, saved every 3 and evaluated every 5; one checkpoint is kept, and the best."""
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
    """Numbers that outlive the trainer that wrote them."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 32)

    @property
    def step(self) -> int:
        """Steps the trainer has done."""
        return self._get(0)

    @step.setter
    def step(self, value: int) -> None:
        self._set(0, value)

    @property
    def in_flight(self) -> int:
        """Step of the checkpoint that was handed to the writer and not yet published; 0 when there is none."""
        return self._get(1)

    @in_flight.setter
    def in_flight(self, value: int) -> None:
        self._set(1, value)

    def instants(self, thread: str) -> int:
        """Instants a thread of the trainer has passed."""
        return self._get(_PLACES[thread])

    def pass_instant(self, thread: str) -> int:
        """One more; its number, from 0. No two threads count in the same place."""
        number = self.instants(thread)
        self._set(_PLACES[thread], number + 1)
        return number

    def _get(self, place: int) -> int:
        return int(struct.unpack_from("q", self._memory, 8 * place)[0])

    def _set(self, place: int, value: int) -> None:
        struct.pack_into("q", self._memory, 8 * place, value)


_PLACES = {STEPS: 2, WRITER: 3}


class Trainer:
    """A forked trainer."""

    def __init__(self, config: RunConfig, *, strike: signal.Signals | None = None, at: Instant | None = None) -> None:
        """Start it; it sends itself the signal `strike` at the instant `at`."""
        self.shared = Shared()
        self.run_directory = Path(config.run_directory)
        assert len(list(Path("/proc/self/task").iterdir())) == 1, "a process with threads cannot be forked safely"
        sys.stdout.flush()
        # Without a handler SIGTERM would end a forked process, and it does not end the first process of a container.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        self.pid = os.fork()
        if self.pid == 0:
            _train(config, self.shared, strike, at)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        self._code: int | None = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it is still there."""
        if self._code is None:
            os.kill(self.pid, number)

    def stopped_or_ended(self) -> bool:
        """Wait until it is stopped (true) or has ended (false)."""
        _pid, status = os.waitpid(self.pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            return True
        self._code = os.waitstatus_to_exitcode(status)
        return False

    def wait(self) -> int:
        """Wait until it has ended; the exit code, negative for a signal."""
        while self._code is None:
            self.stopped_or_ended()
        return self._code


def become_a_pod(config: RunConfig) -> None:
    """Give a forked child the command line of a pod; everything it says goes into files beside its run directory."""
    here = Path(config.run_directory).parent
    output = os.open(here / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    path = here / "run.json"
    path.write_text(config.model_dump_json(by_alias=True, exclude_none=True))
    os.environ[TERMINATION_LOG_ENV] = str(here / f"termination-{os.getpid()}")
    sys.argv = ["trainyard-trainer", "train", "--config", str(path)]


def _train(config: RunConfig, shared: Shared, strike: signal.Signals | None, at: Instant | None) -> None:
    """The child: the command line as a pod runs it, everything it says in a file; never returns."""
    code = 99
    try:
        become_a_pod(config)
        meeting = Meeting(at.lead if at else None)
        _remember_steps(shared, meeting)
        _remember_saves(shared, meeting)
        stop = StopFlag()
        stop.install()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        with every_instant(_striker(shared, strike, at, meeting)):
            code = run_command(stop)
    except BaseException:  # noqa: BLE001 - a forked child must not run on in its parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _striker(
    shared: Shared, strike: signal.Signals | None, at: Instant | None, meeting: Meeting
) -> Callable[[str], None]:
    def tick(instant: str) -> None:
        thread = current_thread()
        number = shared.pass_instant(thread)
        if strike is not None and at is not None and (thread, number) == (at.thread, at.number):
            with meeting.held_back(shared.in_flight):
                os.write(2, f"{strike.name} {instant} (instant {at})\n".encode())
                os.kill(os.getpid(), strike)

    return tick


def _remember_saves(shared: Shared, meeting: Meeting) -> None:
    handed: list[int] = []
    save, start, collect, publish = Saver.save, Writer.start, Writer.collect, CheckpointStore.save

    def remember_step(saver: Saver, draft: Draft, **rest: Any) -> None:
        handed.append(draft.step)
        save(saver, draft, **rest)

    def hand_over(writer: Writer[Any], job: Callable[[], Any]) -> None:
        shared.in_flight = handed[-1]
        start(writer, job)

    def wait(writer: Writer[Any], *, wait: bool) -> Any:
        with meeting.steps_wait() if wait else nullcontext():
            return collect(writer, wait=wait)

    def published(store: CheckpointStore, draft: Draft, write: Callable[[Path, Path], None]) -> Checkpoint:
        checkpoint = publish(store, draft, write)
        shared.in_flight = 0
        return checkpoint

    for owner, name, replacement in (
        (Saver, "save", remember_step),
        (Writer, "start", hand_over),
        (Writer, "collect", wait),
        (CheckpointStore, "save", published),
    ):
        setattr(owner, name, replacement)


def _remember_steps(shared: Shared, meeting: Meeting) -> None:
    original = Reporter.step_done

    def step_done(reporter: Reporter, *, step: int, epoch: float, items: int) -> None:
        shared.step = step
        meeting.step_made(step)
        original(reporter, step=step, epoch=epoch, items=items)

    Reporter.step_done = step_done  # type: ignore[method-assign,assignment] # mypy takes it for bound
