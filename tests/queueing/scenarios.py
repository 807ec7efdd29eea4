"""The runs of `make campaign-queue`."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from tests.queueing import checks, load, simulate, status_history
from tests.queueing.chaos import FOREIGN, POOL, Chaos
from tests.queueing.cluster_fixture import CampaignCluster, Report, StalledError, until_ended
from tests.queueing.history import Change, History, Job, Node, Pod, TrainingJob

SHORT = "queue-short"
SECONDS = {SHORT: 3.0}
LONGER = {"queue-5": 5.0, "queue-15": 15.0, "queue-40": 40.0}
_LAG = 3.0
"""Seconds after which a busy or starting operator has observed a change of the nodes."""
BAR = 0.95
"""Least share of the simulated GPU use that a full run must reach."""


def order_and_use(
    cluster: CampaignCluster, *, jobs: int, seed: int, bar: float | None = None, late: float = status_history.LATE
) -> Report:
    """Many jobs at once: order, capacity, one end per job, and GPU use compared with a simulation.

    Args:
        cluster: The control plane.
        jobs: Number of jobs.
        seed: Seed of sizes, priorities and shapes.
        bar: Least share of the simulated use; None disables the check.
        late: Seconds within which a published position must have been true.
    """
    report = Report(name=f"load: {jobs} jobs on {cluster.nodes} nodes, seed {seed}")
    with cluster.operator() as operator, cluster.history() as history:
        operator.wait_for_leadership()
        began = time.monotonic()
        load.create(cluster.kubernetes, load.mixed(jobs, seed=seed, namespaces=[SHORT]))
        report.figures["creates (s)"] = f"{time.monotonic() - began:.1f}"
        finish(report, history, jobs)
        report.figures["jobs/s, whole run"] = f"{jobs / (time.monotonic() - began):.1f}"
    changes = history.changes()
    safe(report, history, changes)
    report.problems += checks.unexplained(checks.overtakes(changes), operator.restarts)
    report.problems += checks.passed_over(changes)
    report.problems += checks.pods_more_than_one(changes)
    published_values(report, changes, late)
    _use(report, cluster, changes, bar)
    return report


def kills(cluster: CampaignCluster, *, jobs: int, kills: int, seed: int) -> Report:
    """Kill the operator at random instants while jobs are created and end."""
    report = Report(name=f"kills: {jobs} jobs on {cluster.nodes} nodes, {kills} x kill -9, seed {seed}")
    dice, moments = random.Random(seed), list[float]()
    with cluster.operator() as operator, cluster.history() as history:
        operator.wait_for_leadership()
        wanted = load.mixed(jobs, seed=seed, namespaces=[SHORT], prefix="killed")
        filler = threading.Thread(target=load.create, args=(cluster.kubernetes, wanted), daemon=True)
        filler.start()
        due = [time.monotonic() + dice.uniform(0.0, 2.0)]

        def strike() -> None:
            if len(moments) < kills and time.monotonic() >= due[0]:
                moments.append(time.time())
                operator.crash()
                # Most kills hit a leading operator, some its start.
                with suppress(AssertionError):
                    if dice.random() < 0.8:
                        operator.wait_for_leadership()
                due[0] = time.monotonic() + dice.choice((dice.uniform(0.0, 0.5), dice.uniform(0.5, 4.0)))

        finish(report, history, jobs, strike)
        filler.join()
    changes = history.changes()
    report.figures["kills while jobs were unfinished"] = str(len(moments))
    if len(moments) < kills:
        report.problems.append(f"the jobs had ended after {len(moments)} of {kills} kills: create more jobs")
    safe(report, history, changes)
    found = checks.overtakes(changes)
    report.figures["neighbours reordered by a kill"] = str(len(found))
    report.problems += checks.unexplained(found, [*moments, *operator.restarts])
    report.problems += checks.pods_more_than_one(changes)
    return report


def disturbed(cluster: CampaignCluster, *, jobs: int, seed: int, pause: float) -> Report:
    """Disturb nodes, foreign pods and clocks while two pools of jobs wait; afterwards all jobs must end.

    Args:
        cluster: The control plane.
        jobs: Number of jobs.
        seed: Seed of jobs and disturbances.
        pause: Mean seconds between two disturbances.
    """
    report = Report(name=f"chaos: {jobs} jobs on {cluster.nodes} nodes, seed {seed}")
    dice = random.Random(seed)
    cluster.kubernetes.namespace(FOREIGN)
    for number in range(cluster.nodes):
        label = {POOL: "b" if number % 8 == 7 or (number == 0 and cluster.nodes < 8) else "a"}
        cluster.kubernetes.client.patch(f"/api/v1/nodes/kwok-{number}", {"metadata": {"labels": label}})
    mixed = load.mixed(jobs, seed=seed, namespaces=list(LONGER), prefix="chaos")
    wanted = [replace(job, selector={POOL: "b" if dice.random() < 0.1 else "a"}) for job in mixed]
    with cluster.operator() as operator, cluster.history() as history:
        operator.wait_for_leadership()
        chaos = Chaos(cluster.kubernetes, operator, seed=seed, pause=pause)
        load.create(cluster.kubernetes, wanted)
        chaos.start()
        try:
            finish(report, history, int(jobs * 0.9), stall_timeout=300)
        finally:
            chaos.stop()
        finish(report, history, jobs, stall_timeout=300)
    changes = history.changes()
    report.figures["disturbances"] = ", ".join(f"{count} x {name}" for name, count in sorted(chaos.done.items()))
    report.figures["disturbances that were refused"] = f"{len(chaos.errors)} {chaos.errors[:1] or ''}"
    safe(report, history, changes, lag=_LAG)
    report.problems += checks.unexplained(checks.overtakes(changes), [*chaos.kills, *operator.restarts])
    published_values(report, changes)
    return report


def safe(report: Report, history: History, changes: Sequence[Change], *, lag: float = 0.0) -> None:
    """Check the invariants of every run: capacity at every instant, one run per job."""
    report.problems += [f"the recorder lost events: {gap}" for gap in history.gaps if gap.startswith("LOST")]
    report.problems += checks.overfull_nodes(changes)
    report.problems += checks.over_admissions(changes, lag=lag)
    report.problems += checks.ends(changes)
    counts = {
        kind.__name__: sum(isinstance(change, kind) for change in changes) for kind in (Node, Pod, Job, TrainingJob)
    }
    report.figures["events checked"] = ", ".join(f"{count} of {name}s" for name, count in counts.items())


def published_values(report: Report, changes: Sequence[Change], late: float = status_history.LATE) -> None:
    """Compare published positions and estimates with the facts."""
    found = status_history.positions(changes, late)
    report.figures["positions, true within 3 s: first 20, behind"] = f"{found.exact}, {found.behind}"
    report.figures[f"positions, true within {late:.0f} s; wrong"] = f"{found.late}; {len(found.wrong)}"
    report.problems += found.wrong
    for line in status_history.summary(status_history.estimates(changes)):
        report.figures[line[0]] = line[1]


def finish(
    report: Report,
    history: History,
    jobs: int,
    meanwhile: Callable[[], None] = lambda: None,
    stall_timeout: float = 300,
) -> None:
    """Wait for the end of all jobs; a stall is a problem."""
    try:
        until_ended(history, jobs, stall_timeout=stall_timeout, meanwhile=meanwhile)
    except StalledError as error:
        report.problems.append(str(error))


def _use(report: Report, cluster: CampaignCluster, changes: Sequence[Change], bar: float | None) -> None:
    ran, hand_over = simulate.measured(changes)
    real, long = simulate.use_while_long(ran, cluster.gpus)
    nodes = {f"kwok-{number}": 8 for number in range(cluster.nodes)}
    simulated = simulate.run(simulate.requests(changes), nodes, hand_over)
    ideal, long_ideal = simulate.use_while_long(simulated, cluster.gpus)
    given = [
        simulate.use_while_long([replace(job, running=job.admitted) for job in jobs], cluster.gpus)[0]
        for jobs in (ran, simulated)
    ]
    report.figures["GPUs admitted while long: real, simulated (%)"] = f"{100 * given[0]:.1f}, {100 * given[1]:.1f}"
    report.figures["hand-over p50: start, run, release (s)"] = (
        f"{hand_over.start:.2f}, {hand_over.run:.2f}, {hand_over.end:.2f} (mean of all {hand_over.held:.2f})"
    )
    report.figures["GPU use while long: real (% over s)"] = f"{100 * real:.1f} over {long:.0f}"
    report.figures["GPU use while long: simulated (% over s)"] = f"{100 * ideal:.1f} over {long_ideal:.0f}"
    share = real / ideal if ideal else 1.0
    report.figures["share of the simulated use (%)"] = f"{100 * share:.1f}"
    if bar is not None and share < bar:
        report.problems.append(
            f"the GPUs were used {100 * share:.1f} % as well as simulated; the bar is {100 * bar:.0f} %"
        )
