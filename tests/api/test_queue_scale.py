"""A sample of `make campaign-queue`: the same runs, small; what they say of time is not asserted."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from tests.queueing import scenarios
from tests.queueing.cluster_fixture import Yard, yard

SEED = int(os.environ.get("SEED", random.randrange(10**6)))
NODES, JOBS, KILLS = 4, 40, 3
LATE = 60.0
"""Seconds within which a place that was told must have been true; `make campaign-queue` asks for ten."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    folder = tmp_path_factory.mktemp("queueing")
    with yard(f"test-scale-{os.getpid()}", folder, nodes=NODES, seconds=scenarios.SECONDS) as made:
        yield made


def test_order_and_room_at_every_instant(place: Yard) -> None:
    report = scenarios.order_and_use(place, jobs=JOBS, seed=SEED, late=LATE)
    assert not report.problems, str(report)


def test_kills_lose_and_double_nothing(place: Yard) -> None:
    report = scenarios.kills(place, jobs=2 * JOBS, kills=KILLS, seed=SEED)
    assert not report.problems, str(report)
