"""The GPU queue at full size, killed, doubled and disturbed: `make campaign-queue`."""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.queueing import replicas, scenarios
from tests.queueing.cluster_fixture import CampaignCluster, Report, campaign_cluster


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.queueing.campaign", description=__doc__)
    parser.add_argument("--only", choices=RUNS, action="append", help="run (default: all)")
    parser.add_argument("--nodes", type=int, default=64, help="fake nodes of 8 GPUs (default 64)")
    parser.add_argument("--jobs", type=int, default=2000, help="TrainingJobs of a run (default 2000)")
    parser.add_argument("--kills", type=int, default=100, help="kills of the operator (default 100)")
    parser.add_argument("--seconds", type=float, help="how long a pod of the run `load` runs (default 3)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    chosen = parser.parse_args()
    sys.stdout.write(f"seed {chosen.seed}; load average {os.getloadavg()[0]:.1f}\n")
    sys.stdout.flush()
    failed = 0
    for name in chosen.only or RUNS:
        seconds, run = RUNS[name]
        if name == "load" and chosen.seconds is not None:
            seconds = dict.fromkeys(seconds, chosen.seconds)
        with (
            tempfile.TemporaryDirectory() as folder,
            campaign_cluster(
                f"queue-{name}-{os.getpid()}", Path(folder), nodes=chosen.nodes, seconds=seconds
            ) as cluster,
        ):
            report = run(cluster, chosen)
        sys.stdout.write(f"{report}\n")
        sys.stdout.flush()
        failed += bool(report.problems)
    sys.stdout.write(f"load average {os.getloadavg()[1]:.1f} over the last 5 minutes\n")
    return 1 if failed else 0


def _load(cluster: CampaignCluster, chosen: argparse.Namespace) -> Report:
    return scenarios.order_and_use(cluster, jobs=chosen.jobs, seed=chosen.seed, bar=scenarios.BAR)


def _kills(cluster: CampaignCluster, chosen: argparse.Namespace) -> Report:
    return scenarios.kills(cluster, jobs=chosen.jobs, kills=chosen.kills, seed=chosen.seed)


def _replicas(cluster: CampaignCluster, chosen: argparse.Namespace) -> Report:
    return replicas.two_replicas(cluster, jobs=min(chosen.jobs, 300), seed=chosen.seed)


def _chaos(cluster: CampaignCluster, chosen: argparse.Namespace) -> Report:
    return scenarios.disturbed(cluster, jobs=chosen.jobs, seed=chosen.seed, pause=32 / chosen.nodes)


RUNS: dict[str, tuple[dict[str, float], Callable[[CampaignCluster, argparse.Namespace], Report]]] = {
    "load": (scenarios.SECONDS, _load),
    "kills": (scenarios.SECONDS, _kills),
    "replicas": (scenarios.SECONDS, _replicas),
    "chaos": (scenarios.LONGER, _chaos),
}

if __name__ == "__main__":
    sys.exit(main())
