"""The trials: what is done to trainers, and what must hold afterwards."""

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
    """The run that nothing interrupted."""

    outcome: Outcome
    seconds: float
    instants: dict[str, int]
    """Of each thread."""

    def instants_of(self, *threads: str) -> list[Instant]:
        """All instants of some threads."""
        return [Instant(thread, number) for thread in threads for number in range(self.instants[thread])]


@dataclass
class Campaign:
    """Trials over one set of material; every failure names what reproduces it."""

    directory: Path
    material: Material
    references: dict[str, Reference] = field(default_factory=dict)
    groups: dict[str, tuple[Outcome, float]] = field(default_factory=dict)
    """The runs of groups that nothing interrupted, and their seconds."""
    tally: Counter[str] = field(default_factory=Counter)
    steps_lost: Counter[int] = field(default_factory=Counter)
    steps_lost_in_flight: Counter[int] = field(default_factory=Counter)
    """The same of kills that found a checkpoint on its way."""
    trials: int = 0

    def reference(self, method: str) -> Reference:
        """The straight run of a method, made once."""
        if method not in self.references:
            config = self.config(f"straight-{method}", method)
            started = time.monotonic()
            trainer = Trainer(config)
            assert trainer.wait() == ExitCode.FINISHED, "the straight run failed"
            self.references[method] = Reference(
                outcome_of(trainer.run_directory),
                time.monotonic() - started,
                {thread: trainer.shared.instants(thread) for thread in (STEPS, WRITER)},
            )
        return self.references[method]

    def config(self, name: str, method: str) -> RunConfig:
        """Config of a run of its own."""
        (self.directory / name).mkdir(parents=True)
        return self.material.config(self.directory / name / "run", method)

    def finish(self, config: RunConfig, method: str) -> None:
        """The last start must reach the outcome of the straight run; the directory goes when it did."""
        run = Path(config.run_directory)
        if not (run / "result.json").exists():
            self._start_and_wait(config, ExitCode.FINISHED)
        elif list(run.rglob(".tmp-*")):  # killed after its last word: a pod that was killed is started again
            assert Trainer(config).wait() == ExitCode.FINISHED, "a finished run cannot be started again"
        self.check_outcome(run, method)
        shutil.rmtree(run.parent)

    def check_outcome(self, run: Path, method: str) -> None:
        """Export, last weights and metrics are those of the straight run."""
        expected, found = self.reference(method).outcome, outcome_of(run)
        assert found.export == expected.export, "the export differs from the straight run's"
        assert found.weights == expected.weights, "the last weights differ from the straight run's"
        assert found.metrics == expected.metrics, "metrics.jsonl differs from the straight run's"
        assert found.events == expected.events, "the event file differs from the straight run's"

    def _start_and_wait(self, config: RunConfig, code: int) -> None:
        run = Path(config.run_directory)
        before, resumes = resumable(run), resumed_from(run)
        trainer = Trainer(config)
        assert trainer.wait() == code, f"a start ended with {trainer.wait()}, not {code}"
        expected = [] if before is None else [before[0]]
        assert resumed_from(run)[len(resumes) :] == expected, f"it did not resume from {expected}"

    def struck(self, trainer: Trainer, strike: signal.Signals, before: int) -> None:
        """What must hold when a trainer that began at the step `before` has ended.

        A kill loses at most the steps since the newest published checkpoint. That is one interval; while a checkpoint
        is in flight it is the interval before that one and the steps made since. As the next save waits for it, these
        are an interval at most, too.
        """
        code, run = trainer.wait(), trainer.run_directory
        if (run / "result.json").exists():
            assert code in (ExitCode.FINISHED, -strike), f"a finished run ended with {code}"
            return
        expected = ExitCode.INTERRUPTED if strike is signal.SIGTERM else -signal.SIGKILL
        assert code == expected, f"{strike.name} ended with {code}"
        found = resumable(run)
        step, in_flight = max(trainer.shared.step, before), trainer.shared.in_flight
        lost = step - (found[1] if found else 0)
        since = step - in_flight if in_flight else 0
        assert since <= INTERVAL, f"{since} steps were made while a checkpoint was in flight"
        allowed = 0 if strike is signal.SIGTERM else INTERVAL + since
        assert 0 <= lost <= allowed, f"{strike.name} lost {lost} steps, allowed are {allowed}"
        if strike is signal.SIGKILL:
            (self.steps_lost_in_flight if in_flight else self.steps_lost)[lost] += 1


def strike_at_instant(campaign: Campaign, name: str, method: str, strike: signal.Signals, instant: Instant) -> None:
    """A trainer gets a signal at an instant of its way; the next one goes on."""
    config = campaign.config(name, method)
    trainer = Trainer(config, strike=strike, at=instant)
    campaign.struck(trainer, strike, before=0)
    where = f"an instant of the {instant.thread}" + ("" if instant.lead is None else ", the steps ahead")
    campaign.tally[f"{strike.name} at {where}"] += 1
    campaign.finish(config, method)


def strike_at_random(campaign: Campaign, name: str, rng: random.Random) -> None:
    """Start after start of one run gets a signal after a random time; one more goes on to the end."""
    method = rng.choice(METHODS)
    seconds = campaign.reference(method).seconds
    config = campaign.config(name, method)
    run = Path(config.run_directory)
    for _ in range(rng.randint(1, 4)):
        found = resumable(run)
        before, resumes = found[1] if found else 0, resumed_from(run)
        trainer = Trainer(config)
        time.sleep(rng.uniform(0, seconds))
        strike = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        if rng.random() < 0.4:
            _pause(trainer, rng.uniform(0, 0.05), campaign)
        trainer.signal(strike)
        campaign.struck(trainer, strike, before)
        campaign.tally[f"{strike.name} at a random time"] += 1
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


def resurrect(campaign: Campaign, name: str, method: str, instant: Instant, rng: random.Random) -> None:
    """A trainer is stopped at an instant, a successor runs, the old one goes on while it runs or after it."""
    config = campaign.config(name, method)
    old = Trainer(config, strike=signal.SIGSTOP, at=instant)
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
    campaign.tally["resurrected behind a successor"] += 1
    campaign.finish(config, method)


def _wait_for_owner(run: Path, epoch: int) -> None:
    deadline = time.monotonic() + 300
    while not (run / f"owner/{epoch}.json").exists():
        assert time.monotonic() < deadline, "the successor does not take over"
        time.sleep(0.001)
