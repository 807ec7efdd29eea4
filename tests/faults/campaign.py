"""Fault campaign of the operator: every write x fault x scenario, and every watch event: `make campaign-operator`."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.api.gateway_support import Kubernetes
from tests.faults.bench import Bench, Outcome, bench, prepared
from tests.faults.plan import KILLS, Action
from tests.faults.scenarios import SCENARIOS

_CONCURRENT = 6
"""Concurrent runs for faults that affect one job only."""
RESYNC = 4.0
HOLD = 2.0
"""Delay of an event, shorter than the grace of a resync of this bench (2.5 s), after which it counts as lost."""
ANSWERS = tuple(action for action in Action if action not in KILLS)

_HEAD = "| class: scenario | cases | not reached | differences | lost ends | longest |\n|---|---|---|---|---|---|\n"

Case = Callable[[], Outcome]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    name: str
    outcomes: list[Outcome]

    def __str__(self) -> str:
        bad = sum(bool(outcome.problems) for outcome in self.outcomes)
        missed = sum(not outcome.reached for outcome in self.outcomes)
        lost = sum(outcome.lost for outcome in self.outcomes)
        longest = max((outcome.seconds for outcome in self.outcomes), default=0.0)
        return f"| {self.name} | {len(self.outcomes)} | {missed} | {bad} | {lost} | {longest:.1f} s |"


def kills(on: Bench, scenario: str) -> list[Case]:
    """Return cases that kill the operator at each write, before, during and after it."""
    return [
        lambda position=position, action=action: on.run_with_fault(position, action)  # type: ignore[misc]
        for position in on.reference(scenario).positions
        for action in KILLS
    ]


def answers(on: Bench, scenario: str) -> list[Case]:
    """Return cases that refuse or reset each write, or lose its reply."""
    return [
        lambda position=position, action=action: on.run_with_fault(position, action)  # type: ignore[misc]
        for position in on.reference(scenario).positions
        for action in ANSWERS
    ]


def events(on: Bench, scenario: str) -> list[Case]:
    """Return cases that drop and delay each watch event."""
    return [
        lambda kind=kind, nth=nth, hold=hold: on.run_with_watch_fault(scenario, kind, nth, hold)  # type: ignore[misc]
        for kind, count in sorted(on.reference(scenario).events.items())
        for nth in range(1, count + 1)
        for hold in (None, HOLD)
    ]


CLASSES: dict[str, tuple[Callable[[Bench, str], list[Case]], int]] = {
    "kills": (kills, 1),
    "answers": (answers, _CONCURRENT),
    "events": (events, _CONCURRENT),
}


def run(cases: Iterable[Case], concurrent: int) -> list[Outcome]:
    """Run cases concurrently and print the problems of each."""
    with ThreadPoolExecutor(concurrent) as pool:
        outcomes = []
        for outcome in pool.map(lambda case: case(), cases):
            outcomes.append(outcome)
            for problem in outcome.problems:
                sys.stderr.write(f"{outcome.what}\n  {problem}\n")
        return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=CLASSES, action="append", help="class of faults (default: all)")
    parser.add_argument("--scenario", choices=SCENARIOS, action="append", help="scenario (default: all)")
    parser.add_argument("--sample", type=int, help="most cases per class and scenario")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    chosen = parser.parse_args()
    sys.stdout.write(f"seed {chosen.seed}\n\n{_HEAD}")
    with prepared(f"campaign-{chosen.seed}") as kubernetes, tempfile.TemporaryDirectory() as folder:
        return _campaign(kubernetes, Path(folder), chosen)


def _campaign(kubernetes: Kubernetes, folder: Path, chosen: argparse.Namespace) -> int:
    rng, failed = random.Random(chosen.seed), 0
    for name in chosen.only or CLASSES:
        cases_of, concurrent = CLASSES[name]
        with bench(kubernetes, folder, RESYNC if name == "events" else None) as on:
            for scenario in chosen.scenario or SCENARIOS:
                cases = cases_of(on, scenario)
                if chosen.sample:
                    cases = rng.sample(cases, min(chosen.sample, len(cases)))
                row = Row(name=f"{name}: {scenario}", outcomes=run(cases, concurrent))
                failed += sum(bool(outcome.problems) for outcome in row.outcomes)
                sys.stdout.write(f"{row}\n")
                sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
