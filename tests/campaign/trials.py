"""Trials: faults injected into trainers, and the invariants checked afterwards."""

import random
import shutil
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.campaign.instants import STEPS, WRITER, Instant
from tests.campaign.invariants import Outcome, outcome_of, resumable, resumed_from
from tests.campaign.warm import INTERVAL, Material, Trainer
from trainyard_crds.exitcodes import ExitCode
from trainyard_crds.runconfig import RunConfig

METHODS = ("lora", "lora", "lora", "lora", "qlora", "full")


@dataclass
class Reference:
    """An uninterrupted run."""

    outcome: Outcome
    seconds: float
    instants: dict[str, int]
    """Number of instants of each thread."""

    def instants_of(self, *threads: str) -> list[Instant]:
        """Return all instants of some threads."""
        return [Instant(thread, number) for thread in threads for number in range(self.instants[thread])]


@dataclass
class Campaign:
    """Trials over one model and dataset, with their statistics."""

    directory: Path
    material: Material
    references: dict[str, Reference] = field(default_factory=dict)
    groups: dict[str, tuple[Outcome, float]] = field(default_factory=dict)
    """Outcome and seconds of uninterrupted runs of groups."""
    tally: Counter[str] = field(default_factory=Counter)
    steps_lost: Counter[int] = field(default_factory=Counter)
    steps_lost_in_flight: Counter[int] = field(default_factory=Counter)
    """Steps lost by kills while a checkpoint was in flight."""
    trials: int = 0

    def reference(self, method: str) -> Reference:
        """Return the uninterrupted run of a method, made once."""
        if method not in self.references:
            config = self.config(f"uninterrupted-{method}", method)
            started = time.monotonic()
            trainer = Trainer(config)
            assert trainer.wait() == ExitCode.FINISHED, "the uninterrupted run failed"
            self.references[method] = Reference(
                outcome_of(trainer.run_directory),
                time.monotonic() - started,
                {thread: trainer.shared.instants(thread) for thread in (STEPS, WRITER)},
            )
        return self.references[method]

    def config(self, name: str, method: str) -> RunConfig:
        """Return the config of a new run."""
        (self.directory / name).mkdir(parents=True)
        return self.material.config(self.directory / name / "run", method)

    def finish(self, config: RunConfig, method: str) -> None:
        """Run the last attempt, check its outcome and remove the directory."""
        run = Path(config.run_directory)
        if not (run / "result.json").exists():
            self._start_and_wait(config, ExitCode.FINISHED)
        elif list(run.rglob(".tmp-*")):  # killed after the result was written: the pod is restarted
            assert Trainer(config).wait() == ExitCode.FINISHED, "a finished run cannot be restarted"
        self.check_outcome(run, method)
        shutil.rmtree(run.parent)

    def check_outcome(self, run: Path, method: str) -> None:
        """Check that export, last weights and metrics equal those of the uninterrupted run."""
        expected, found = self.reference(method).outcome, outcome_of(run)
        assert found.export == expected.export, "the export differs from the uninterrupted run's"
        assert found.weights == expected.weights, "the last weights differ from the uninterrupted run's"
        assert found.metrics == expected.metrics, "metrics.jsonl differs from the uninterrupted run's"
        assert found.events == expected.events, "the event file differs from the uninterrupted run's"

    def _start_and_wait(self, config: RunConfig, code: int) -> None:
        run = Path(config.run_directory)
        before, resumes = resumable(run), resumed_from(run)
        trainer = Trainer(config)
        assert trainer.wait() == code, f"an attempt ended with {trainer.wait()}, not {code}"
        expected = [] if before is None else [before[0]]
        assert resumed_from(run)[len(resumes) :] == expected, f"it did not resume from {expected}"

    def check_signalled(self, trainer: Trainer, sent: signal.Signals, before: int) -> None:
        """Check a trainer that started at step `before` and received a signal.

        A kill loses at most the steps since the newest published checkpoint: one interval without a checkpoint in
        flight, and otherwise the interval before it plus the steps since its copy. The next save waits for the one in
        flight, so the latter are at most one interval, too.
        """
        code, run = trainer.wait(), trainer.run_directory
        if (run / "result.json").exists():
            assert code in (ExitCode.FINISHED, -sent), f"a finished run ended with {code}"
            return
        expected = ExitCode.INTERRUPTED if sent is signal.SIGTERM else -signal.SIGKILL
        assert code == expected, f"{sent.name} ended with {code}"
        found = resumable(run)
        step, in_flight = max(trainer.shared.step, before), trainer.shared.in_flight
        lost = step - (found[1] if found else 0)
        since = step - in_flight if in_flight else 0
        assert since <= INTERVAL, f"{since} steps were made while a checkpoint was in flight"
        allowed = 0 if sent is signal.SIGTERM else INTERVAL + since
        assert 0 <= lost <= allowed, f"{sent.name} lost {lost} steps, allowed are {allowed}"
        if sent is signal.SIGKILL:
            (self.steps_lost_in_flight if in_flight else self.steps_lost)[lost] += 1


def signal_at_instant(campaign: Campaign, name: str, method: str, sent: signal.Signals, instant: Instant) -> None:
    """Send a signal to a trainer at an instant, then let the next attempt finish."""
    config = campaign.config(name, method)
    trainer = Trainer(config, send=sent, at=instant)
    campaign.check_signalled(trainer, sent, before=0)
    where = f"an instant of the {instant.thread}" + ("" if instant.lead is None else ", training ahead")
    campaign.tally[f"{sent.name} at {where}"] += 1
    campaign.finish(config, method)


def signal_at_random_times(campaign: Campaign, name: str, rng: random.Random) -> None:
    """Send a signal to some attempts of a run after a random time, then let the last attempt finish."""
    method = rng.choice(METHODS)
    seconds = campaign.reference(method).seconds
    config = campaign.config(name, method)
    run = Path(config.run_directory)
    for _ in range(rng.randint(1, 4)):
        found = resumable(run)
        before, resumes = found[1] if found else 0, resumed_from(run)
        trainer = Trainer(config)
        time.sleep(rng.uniform(0, seconds))
        sent = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        if rng.random() < 0.4:
            _pause(trainer, rng.uniform(0, 0.05), campaign)
        trainer.signal(sent)
        campaign.check_signalled(trainer, sent, before)
        campaign.tally[f"{sent.name} at a random time"] += 1
        assert set(resumed_from(run)[len(resumes) :]) <= {found[0] if found else ""}, f"it did not resume from {found}"
        if (run / "result.json").exists():
            break
    campaign.finish(config, method)


def _pause(trainer: Trainer, seconds: float, campaign: Campaign) -> None:
    trainer.signal(signal.SIGSTOP)
    if trainer.stopped_or_ended():
        time.sleep(seconds)
        trainer.signal(signal.SIGCONT)
        campaign.tally["SIGSTOP and SIGCONT at a random time"] += 1


def resume_stale_trainer(campaign: Campaign, name: str, method: str, instant: Instant, rng: random.Random) -> None:
    """Stop a trainer at an instant, start a successor, and continue the stale trainer during or after its run."""
    config = campaign.config(name, method)
    old = Trainer(config, send=signal.SIGSTOP, at=instant)
    assert old.stopped_or_ended(), f"there is no instant {instant}"
    run = old.run_directory
    is_owner, is_finished = (run / "owner/1.json").exists(), (run / "result.json").exists()
    successor = Trainer(config)
    if is_owner and not is_finished and rng.random() < 0.5:
        _wait_for_owner(run, 2)
        time.sleep(rng.uniform(0, campaign.reference(method).seconds / 2))
    else:
        assert successor.wait() == ExitCode.FINISHED, f"the successor ended with {successor.wait()}"
    old.signal(signal.SIGCONT)
    expected = ExitCode.SUPERSEDED if is_owner and not is_finished else ExitCode.FINISHED
    assert old.wait() == expected, f"the old trainer ended with {old.wait()}, not {expected}"
    assert successor.wait() == ExitCode.FINISHED, f"the successor ended with {successor.wait()}"
    campaign.tally["stale trainer resumed after its successor started"] += 1
    campaign.finish(config, method)


def _wait_for_owner(run: Path, epoch: int) -> None:
    deadline = time.monotonic() + 300
    while not (run / f"owner/{epoch}.json").exists():
        assert time.monotonic() < deadline, "the successor does not take over"
        time.sleep(0.001)
