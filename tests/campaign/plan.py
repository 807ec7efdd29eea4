"""Selection of the trials of a campaign."""

import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from io import StringIO
from itertools import islice
from pathlib import Path

from tests.campaign.groups import signal_group
from tests.campaign.instants import STEPS, WRITER, Instant
from tests.campaign.trials import Campaign, resume_stale_trainer, signal_at_instant, signal_at_random_times
from tests.campaign.warm import INTERVAL, Material
from trainyard_trainer import bootstrap
from trainyard_trainer.stop import StopFlag

Trial = tuple[str, Callable[[], None]]


class CampaignError(Exception):
    """A trial failed; the message names the trial and the seed."""


def run_campaign(directory: Path, *, seed: int, count: int, seconds: float) -> Campaign:
    """Run `count` trials, or as many as the time allows.

    Raises:
        CampaignError: An invariant is violated.
    """
    campaign = Campaign(directory, Material.make(directory / "material"))
    warm_up(campaign)
    campaign.reference("lora")
    deadline = time.monotonic() + seconds
    for description, trial in islice(_trials(campaign, random.Random(seed)), count):
        if time.monotonic() > deadline:
            break
        campaign.trials += 1
        try:
            trial()
        except AssertionError as error:
            raise CampaignError(f"seed {seed}: {description}: {error}\n{_outputs(directory)}") from error
    return campaign


def warm_up(campaign: Campaign) -> None:
    """Import in this process all modules that the methods need."""
    with redirect_stdout(StringIO()):
        for method in ("lora", "qlora", "full"):
            config = campaign.config(f"warm-{method}", method)
            assert bootstrap.train(config, stop=StopFlag(), environ={}).exit_code == 0


def _trials(campaign: Campaign, rng: random.Random) -> Iterator[Trial]:
    """Yield in turn: a signal at an instant, signals at random times, a stale trainer that resumes, signals to a group,
    and the first or third again with the writer paused at the instant while training continues.

    The instants are those of both threads of an uninterrupted run, repeatedly in random order.
    """
    for_signals, for_stale_trainers = (_instants(campaign, rng, STEPS, WRITER) for _ in range(2))
    behind = _instants(campaign, rng, WRITER)
    number = 0
    while True:
        name, own = f"trial-{number}", random.Random(rng.random())
        kind = number % 5
        if kind == 0:
            at, sent = next(for_signals), own.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
            yield (
                f"{sent.name} at instant {at}",
                partial(signal_at_instant, campaign, name, "lora", sent, at),
            )
        elif kind == 1:
            yield "signals at random times", partial(signal_at_random_times, campaign, name, own)
        elif kind == 2:
            at = next(for_stale_trainers)
            yield (
                f"stale trainer resumed at instant {at}",
                partial(resume_stale_trainer, campaign, name, "lora", at, own),
            )
        elif kind == 3:
            yield "a group with signals at random times", partial(signal_group, campaign, name, own)
        else:
            at = replace(next(behind), lead=own.randint(1, INTERVAL))
            yield _with_training_ahead(campaign, name, at, own)
        number += 1


def _with_training_ahead(campaign: Campaign, name: str, at: Instant, own: random.Random) -> Trial:
    sent = own.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
    if sent is signal.SIGSTOP:
        return f"stale trainer resumed at instant {at}", partial(resume_stale_trainer, campaign, name, "lora", at, own)
    return f"{sent.name} at instant {at}", partial(signal_at_instant, campaign, name, "lora", sent, at)


def _instants(campaign: Campaign, rng: random.Random, *threads: str) -> Iterator[Instant]:
    instants = campaign.reference("lora").instants_of(*threads)
    while True:
        yield from rng.sample(instants, len(instants))


def _outputs(directory: Path) -> str:
    """Return the output of the trainers of the failed trial."""
    outputs = sorted(directory.glob("trial-*/output.txt"))
    return "\n".join(path.read_text()[-3000:] for path in outputs)
