"""A small sample of `make campaign-queue`, without assertions about time."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from tests.queueing import scenarios
from tests.queueing.cluster_fixture import CampaignCluster, campaign_cluster

SEED = int(os.environ.get("SEED", random.randrange(10**6)))
NODES, JOBS, KILLS = 4, 40, 3
LATE = 60.0
"""Seconds within which a published position must have been true; `make campaign-queue` requires ten."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CampaignCluster]:
    folder = tmp_path_factory.mktemp("queueing")
    with campaign_cluster(f"test-scale-{os.getpid()}", folder, nodes=NODES, seconds=scenarios.SECONDS) as made:
        yield made


def test_order_and_capacity_hold_at_every_instant(cluster: CampaignCluster) -> None:
    report = scenarios.order_and_use(cluster, jobs=JOBS, seed=SEED, late=LATE)
    assert not report.problems, str(report)


def test_operator_kills_lose_and_repeat_no_job(cluster: CampaignCluster) -> None:
    report = scenarios.kills(cluster, jobs=2 * JOBS, kills=KILLS, seed=SEED)
    assert not report.problems, str(report)
