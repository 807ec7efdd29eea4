"""ClusterQueues of a cohort: borrowing, reclaiming, fair sharing and queue positions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.api.gateway_support import Kubernetes, until
from tests.api.kueue_support import GROUP
from tests.kueue.cluster_fixture import FLAVOR, Job, KueueTeam, Object, local_queue, queue_of_flavors
from tests.kueue.manager import Kueue
from trainyard_kube.errors import ApiError

SAVES = "trainyard.test/saves"
RECLAIMS = {"withinClusterQueue": "LowerPriority", "reclaimWithinCohort": "Any"}


def queue(team: KueueTeam, kubernetes: Kubernetes, name: str, gpus: int, cohort: str, **spec: Any) -> None:
    """A ClusterQueue of a cohort, and a LocalQueue of its name."""
    queue_of_flavors(kubernetes, name, {FLAVOR: gpus}, **{"preemption": RECLAIMS, "cohortName": cohort, **spec})
    local_queue(kubernetes, team.namespace, name, name)


def submit(team: KueueTeam, name: str, queue: str, gpus: int = 1, priority: int = 5) -> Job:
    return team.submit(name, gpus=gpus, queue={"name": queue, "priority": priority})


@contextmanager
def saving(job: Job) -> Iterator[None]:
    """Keep a job's pod from being deleted, as if it saved for long."""
    (pod,) = job.live()
    path = f"/api/v1/namespaces/{job.team.namespace}/pods/{pod['metadata']['name']}"
    until(lambda: _refinalize(job, path, {SAVES}, set()))
    try:
        yield
    finally:
        until(lambda: _refinalize(job, path, set(), {SAVES}))


def _refinalize(job: Job, path: str, more: set[str], fewer: set[str]) -> bool:
    """Change the finalizers of a pod; False if another client changed it at the same time."""
    metadata = job.client.get(path)["metadata"]
    finalizers = sorted({*metadata.get("finalizers", []), *more} - fewer)
    with suppress(ApiError):
        body = {"finalizers": finalizers, "resourceVersion": metadata["resourceVersion"]}
        return bool(job.client.patch(path, {"metadata": body}))
    return False


def test_reclaimed_quota_evicts_the_borrower_which_resumes(team: KueueTeam, kubernetes: Kubernetes) -> None:
    for name in ("left", "right"):
        queue(team, kubernetes, name, 2, "pair")
    jobs = [submit(team, name, "left", 2) for name in ("first", "second")]
    for job in jobs:
        job.runs()
    large = submit(team, "large", "left", 5)
    assert "current podset request (5) > maximum capacity (4)" in large.waits("ExceedsMaxQuota")["message"]
    large.delete()
    uids = {job.name: job.child()["metadata"]["uid"] for job in jobs}
    with saving(jobs[0]), saving(jobs[1]):
        owner = submit(team, "owner", "right", 2)
        borrower = until(lambda: next((job for job in jobs if job.status()["phase"] == "Suspending"), None))
        assert borrower.status()["message"].startswith(
            "The job saves a checkpoint. Kueue stopped it: Preempted to accommodate a workload (UID: "
        )
    owner.runs()
    status = borrower.waits("Preempted")
    assert (
        "due to reclamation within the cohort; preemptor path: /pair/right; preemptee path: /pair/left. A queue "
        in (status["message"])
    )
    assert "A queue that lent its quota takes it back. " in status["message"]
    assert status["message"].endswith("It resumes where it was when Kueue admits it.")
    until(lambda: "2 more needed" in borrower.status()["message"])
    assert borrower.status()["queue"]["reason"] == "Preempted"
    (stays,) = [job for job in jobs if job is not borrower]
    assert stays.status()["phase"] == "Running"
    owner.succeed()
    assert borrower.runs(attempts=2)["attemptCounts"]["failed"] == 0
    assert borrower.child()["metadata"]["uid"] == uids[borrower.name]


def test_local_queues_share_the_positions_of_a_borrowing_cluster_queue(team: KueueTeam, kubernetes: Kubernetes) -> None:
    for name in ("north", "south"):
        queue(team, kubernetes, name, 2, "poles", preemption={"reclaimWithinCohort": "Any"})
    local_queue(kubernetes, team.namespace, "north-too", "north")
    running = [submit(team, name, "north", 2) for name in ("first", "second")]
    for job in running:
        job.runs()
    waiting = {
        name: submit(team, name, where, 2, priority)
        for name, where, priority in (("a", "north", 3), ("b", "north-too", 7), ("c", "north", 5))
    }
    until(lambda: [waiting[name].position() for name in "bca"] == [1, 2, 3])
    assert [waiting[name].status()["queue"]["length"] for name in "ac"] == [3, 3]
    assert {waiting[name].status()["queue"]["pool"] for name in "abc"} == {"north", "north-too"}
    running[0].succeed()
    waiting["b"].runs()
    until(lambda: [waiting[name].position() for name in "ca"] == [1, 2])
    owner = submit(team, "owner", "south", 2)
    owner.runs()
    sent = until(lambda: [job for job in (running[1], waiting["b"]) if job.status()["phase"] == "Queued"])
    assert len(sent) == 1
    row = [*sent, waiting["c"], waiting["a"]]
    until(lambda: sorted(job.position() or 0 for job in row) == [1, 2, 3])
    assert (waiting["c"].position() or 0) < (waiting["a"].position() or 0)


def test_fair_sharing_evicts_the_largest_borrower(team: KueueTeam, kubernetes: Kubernetes, kueue: Kueue) -> None:
    kueue.kill()
    kueue.start(fairSharing={"preemptionStrategies": ["LessThanOrEqualToFinalShare", "LessThanInitialShare"]})
    try:
        queue(team, kubernetes, "lender", 4, "fair")
        for name, weight in (("light", "1"), ("heavy", "3")):
            queue(team, kubernetes, name, 0, "fair", fairSharing={"weight": weight})
        light = [submit(team, f"light-{number}", "light") for number in range(5)]
        until(lambda: len(phase(light, "Running")) == 4)
        heavy = [submit(team, f"heavy-{number}", "heavy") for number in range(4)]
        until(lambda: len(phase(heavy, "Running")) == 3)
        until(lambda: len(phase(light, "Running")) == 1)
        sent = until(lambda: three if len(three := ran_before(phase(light, "Queued"))) == 3 else None)
        for job in sent:
            message = job.waits("Preempted")["message"]
            assert "due to Fair Sharing within the cohort; " in message
            assert " Its queue had borrowed more than its fair share. " in message
        until(lambda: has_positions(light) and has_positions(heavy))
        shares = {name: share(kubernetes, name) for name in ("light", "heavy")}
        assert shares == {"light": 1, "heavy": 3}
        for job in phase(heavy, "Running"):
            job.succeed()
        until(lambda: not phase(heavy, "Queued"))
        assert all(job.status()["attemptCounts"]["failed"] == 0 for job in sent)
    finally:
        kueue.kill()


def phase(jobs: list[Job], name: str) -> list[Job]:
    """The jobs in a phase."""
    return [job for job in jobs if job.status().get("phase") == name]


def ran_before(jobs: list[Job]) -> list[Job]:
    """Return the jobs that have run."""
    return [job for job in jobs if "attempts" in job.status()]


def has_positions(jobs: list[Job]) -> bool:
    """Return whether the waiting jobs have the positions from 1 to their number."""
    positions = sorted(job.position() or 0 for job in phase(jobs, "Queued"))
    return positions == list(range(1, len(positions) + 1))


def share(kubernetes: Kubernetes, name: str) -> int:
    """GPUs that a ClusterQueue uses."""
    status: Object = kubernetes.client.get(f"{GROUP}/clusterqueues/{name}")["status"]
    used = {one["name"]: one["total"] for one in status["flavorsUsage"][0]["resources"]}
    return int(used["nvidia.com/gpu"])
