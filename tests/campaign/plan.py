"""Which trials a campaign makes."""

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

from tests.campaign.groups import strike_group
from tests.campaign.instants import STEPS, WRITER, Instant
from tests.campaign.trials import Campaign, resurrect, strike_at_instant, strike_at_random
from tests.campaign.warm import INTERVAL, Material
from trainyard_trainer import bootstrap
from trainyard_trainer.stop import StopFlag

Trial = tuple[str, Callable[[], None]]


class CampaignError(Exception):
    """A trial failed; says which and how to repeat it."""


def run_campaign(directory: Path, *, seed: int, count: int, seconds: float) -> Campaign:
    """Make `count` trials, or as many as fit into the time.

    Raises:
        CampaignError: An invariant did not hold.
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
    """Import in this process what every method needs."""
    with redirect_stdout(StringIO()):
        for method in ("lora", "qlora", "full"):
            config = campaign.config(f"warm-{method}", method)
            assert bootstrap.train(config, stop=StopFlag(), environ={}).exit_code == 0


def _trials(campaign: Campaign, rng: random.Random) -> Iterator[Trial]:
    """In turn: a signal at an instant, signals at random times, a trainer that comes back, signals at a group, the
    first or the third again with a writer that is held back at the instant while the steps go on.

    The instants are all instants of both threads of a straight run in a random order, and again from the beginning.
    """
    struck, resurrected = (_instants(campaign, rng, STEPS, WRITER) for _ in range(2))
    behind = _instants(campaign, rng, WRITER)
    number = 0
    while True:
        name, own = f"trial-{number}", random.Random(rng.random())
        kind = number % 5
        if kind == 0:
            at, strike = next(struck), own.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
            yield f"{strike.name} at instant {at}", partial(strike_at_instant, campaign, name, "lora", strike, at)
        elif kind == 1:
            yield "signals at random times", partial(strike_at_random, campaign, name, own)
        elif kind == 2:
            at = next(resurrected)
            yield f"resurrected at instant {at}", partial(resurrect, campaign, name, "lora", at, own)
        elif kind == 3:
            yield "a group with signals at random times", partial(strike_group, campaign, name, own)
        else:
            at = replace(next(behind), lead=own.randint(1, INTERVAL))
            yield _with_steps_ahead(campaign, name, at, own)
        number += 1


def _with_steps_ahead(campaign: Campaign, name: str, at: Instant, own: random.Random) -> Trial:
    strike = own.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
    if strike is signal.SIGSTOP:
        return f"resurrected at instant {at}", partial(resurrect, campaign, name, "lora", at, own)
    return f"{strike.name} at instant {at}", partial(strike_at_instant, campaign, name, "lora", strike, at)


def _instants(campaign: Campaign, rng: random.Random, *threads: str) -> Iterator[Instant]:
    instants = campaign.reference("lora").instants_of(*threads)
    while True:
        yield from rng.sample(instants, len(instants))


def _outputs(directory: Path) -> str:
    """What the trainers of the failed trial said."""
    outputs = sorted(directory.glob("trial-*/output.txt"))
    return "\n".join(path.read_text()[-3000:] for path in outputs)
