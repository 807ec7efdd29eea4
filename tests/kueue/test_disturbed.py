"""Held, drained and missing queues, kills of Kueue and the operator, and deletions at any time."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.api.chart_support import ROOT
from tests.api.gateway_support import Kubernetes, until
from tests.api.kueue_support import CHART, GROUP
from tests.api.kwok_support import training_job
from tests.api.operator_support import Operator
from tests.kueue.cluster_fixture import CLAIM, QUEUE, Job, KueueTeam, cluster_queue, local_queue
from tests.kueue.manager import Kueue


def test_held_cluster_queue_admits_no_job_and_drained_one_evicts(team: KueueTeam, kubernetes: Kubernetes) -> None:
    running = team.submit("running")
    running.runs()
    cluster_queue(kubernetes, 2, stopPolicy="Hold")
    waiting = team.submit("waiting")
    assert waiting.waits("Inadmissible")["message"] == (
        "Kueue has not admitted it: ClusterQueue gpus is inactive. It is held, or lacks what it names: see the "
        "condition Active in kubectl describe clusterqueue gpus."
    )
    assert running.status()["phase"] == "Running"
    cluster_queue(kubernetes, 2, stopPolicy="HoldAndDrain")
    status = running.waits("ClusterQueueStopped")
    assert status["message"].startswith("Kueue stopped it: The ClusterQueue is stopped. ")
    cluster_queue(kubernetes, 2)
    assert running.runs(attempts=2)["attemptCounts"]["failed"] == 0
    waiting.runs()


def test_drained_local_queue_evicts_its_jobs(team: KueueTeam, kubernetes: Kubernetes) -> None:
    job = team.submit("job")
    job.runs()
    path = f"{GROUP}/namespaces/{team.namespace}/localqueues/{QUEUE}"
    kubernetes.client.patch(path, {"spec": {"stopPolicy": "HoldAndDrain"}})
    status = job.waits("LocalQueueStopped")
    assert status["message"].startswith("Kueue stopped it: The LocalQueue is stopped. ")
    kubernetes.client.patch(path, {"spec": {"stopPolicy": "None"}})
    assert job.runs(attempts=2)["attemptCounts"]["failed"] == 0


def test_missing_local_queue_is_reported_and_can_be_changed(team: KueueTeam, kubernetes: Kubernetes) -> None:
    made_later, renamed = team.submit("later", queue={"name": "gone"}), team.submit("renamed", queue={"name": "typo"})
    for job, name in ((made_later, "gone"), (renamed, "typo")):
        status = job.waits("Inadmissible")
        assert status["message"] == f"Kueue has not admitted it: LocalQueue {name} doesn't exist."
    local_queue(kubernetes, team.namespace, "gone")
    made_later.runs()
    renamed.patch(queue={"name": QUEUE})
    renamed.runs()


def test_jobs_wait_for_kueue_while_it_is_down(team: KueueTeam, kueue: Kueue) -> None:
    first = team.submit("first", gpus=2)
    first.runs()
    waiting = team.submit("waiting")
    waiting.waits("WaitingForQuota")
    held = team.submit("held")
    held.waits("WaitingForTurn")  # Kueue writes no message for a job equal to one it considered
    first.end(after="3s")  # mostly while Kueue is down: its webhooks see each change of a pod but its status
    kueue.kill()
    new = team.submit("new")
    assert new.waits("WebhookUnavailable")["queue"]["reason"] == "WebhookUnavailable"
    held.patch(suspend=True)
    status = held.wait("Suspended")
    assert "The API server cannot make this change now; the operator retries:" in status["message"]
    assert waiting.status()["phase"] == "Queued"
    kueue.start()
    first.wait("Succeeded")
    waiting.runs()
    new.runs()
    held.reaches(lambda status: "the operator retries" not in status["message"])
    assert held.status()["phase"] == "Suspended"
    assert held.workload_spec()["active"] is False
    waiting.succeed()
    held.patch(suspend=False)
    held.runs()


def test_a_running_job_is_suspended_while_kueue_is_down(team: KueueTeam, kueue: Kueue) -> None:
    job = team.submit("job")
    job.runs()
    kueue.kill()
    job.patch(suspend=True)
    status = job.wait("Suspending")
    assert status["message"].startswith(
        "The job saves a checkpoint and frees its GPUs. The API server cannot make this change now; the operator "
        "retries: "
    )
    assert 'failed calling webhook "vworkload.kb.io"' in status["message"]
    assert len(job.live()) == 1
    kueue.start()
    job.wait("Suspended")
    job.patch(suspend=False)
    job.runs(attempts=2)


def is_submitted(_low: Job, high: Job) -> bool:
    return "jobName" in high.status()


def is_evicted(low: Job, _high: Job) -> bool:
    return any(
        condition["type"] == "Evicted" and condition["status"] == "True"
        for condition in (low.workload() or {}).get("status", {}).get("conditions", [])
    )


def is_suspended(low: Job, _high: Job) -> bool:
    return bool(low.child()["spec"]["suspend"])


@pytest.mark.parametrize("stage", [is_submitted, is_evicted, is_suspended])
def test_kueue_is_killed_while_it_preempts(
    team: KueueTeam, kueue: Kueue, kubernetes: Kubernetes, stage: Callable[[Job, Job], bool]
) -> None:
    cluster_queue(kubernetes, 2, preemption={"withinClusterQueue": "LowerPriority"})
    low = team.submit("low", gpus=2, priority=1)
    low.runs()
    high = team.submit("high", gpus=2, priority=9)
    until(lambda: stage(low, high))
    kueue.kill()
    kueue.start()
    high.runs()
    low.waits("Preempted")
    high.succeed()
    status = low.runs(attempts=2)
    assert status["attemptCounts"]["failed"] == 0
    low.succeed()


def test_finer_reasons_of_kueue_are_reported(team: KueueTeam, kueue: Kueue) -> None:
    kueue.kill()
    kueue.start("UnadmittedWorkloadsObservability")
    try:
        first = team.submit("first", gpus=2)
        first.runs()
        waiting, large = team.submit("waiting"), team.submit("large", gpus=4)
        waiting.waits("WaitingForQuota")
        large.waits("ExceedsMaxQuota")
        first.patch(suspend=True)
        first.wait("Suspended")
        waiting.runs()
        first.patch(suspend=False)
        first.waits("WaitingForQuota")
        waiting.succeed()
        first.runs(attempts=2)
        first.succeed()
    finally:
        kueue.kill()


def test_job_of_the_builtin_queue_moves_to_kueue_on_resume(
    team: KueueTeam, kubernetes: Kubernetes, operator: Operator, tmp_path: Path
) -> None:
    operator.kill()
    builtin = Operator(kubernetes, tmp_path, "builtin", chart=CHART)
    try:
        builtin.wait_for_leadership()
        made = training_job(team.namespace, "job", claim=CLAIM, gpus=1)["spec"]
        job = Job(team, "job", team.create("job", **made).uid)
        job.runs()
        job.patch(suspend=True)
        job.wait("Suspended")
    finally:
        builtin.kill()
    operator.restart()
    assert job.workload() is None
    job.patch(suspend=False, queue={"name": QUEUE})
    job.runs(attempts=2)
    assert job.workload_spec()["queueName"] == QUEUE
    job.succeed()


def test_restarted_operator_continues_with_kueues_decisions(team: KueueTeam, operator: Operator) -> None:
    running = team.submit("running", gpus=2)
    running.runs()
    waiting = team.submit("waiting")
    waiting.waits("WaitingForQuota")
    running.patch(suspend=True)
    until(lambda: running.workload_spec()["active"] is False)
    operator.kill()
    until(lambda: waiting.child()["spec"]["suspend"] is False)
    operator.restart()
    running.wait("Suspended")
    waiting.runs()
    operator.kill()
    running.patch(suspend=False)
    new = team.submit("new", gpus=4)
    waiting.end()
    operator.restart()
    waiting.wait("Succeeded")
    running.runs(attempts=2)
    new.waits("ExceedsMaxQuota")


def gone(team: KueueTeam, *jobs: Job) -> None:
    """Delete jobs and wait until nothing of them is left."""
    for job in jobs:
        job.delete()
    until(lambda: not any(job.client.exists(job.path) for job in jobs))
    until(lambda: not any(job.client.exists(job.child_path) or job.pods() for job in jobs))
    until(lambda: all(job.workload() is None for job in jobs))


def test_jobs_are_deleted_in_every_state_of_kueue(team: KueueTeam, kubernetes: Kubernetes) -> None:
    cluster_queue(kubernetes, 2, preemption={"withinClusterQueue": "LowerPriority"})
    running, suspended = team.submit("running", priority=1), team.submit("suspended", priority=1)
    running.runs()
    suspended.runs()
    suspended.patch(suspend=True)
    suspended.wait("Suspended")
    gang, lost = team.submit("gang", nodes=2, priority=9), team.submit("lost", queue={"name": "gone"})
    gang.runs()
    running.waits("Preempted")
    lost.waits("Inadmissible")
    gone(team, running, suspended, gang, lost)
    drained = team.submit("drained")
    drained.runs()
    cluster_queue(kubernetes, 2, stopPolicy="HoldAndDrain")
    drained.waits("ClusterQueueStopped")
    gone(team, drained)


def test_jobs_deleted_while_kueue_is_down_are_gone_after_its_restart(team: KueueTeam, kueue: Kueue) -> None:
    running = team.submit("running", gpus=2)
    running.runs()
    waiting = team.submit("waiting")
    waiting.waits("WaitingForQuota")
    kueue.kill()
    new = team.submit("new")
    new.waits("WebhookUnavailable")
    for job in (running, waiting, new):
        job.delete()
    until(lambda: not new.client.exists(new.path))
    kueue.start()
    gone(team, running, waiting, new)


def test_jobs_deleted_while_the_operator_is_down_are_gone(team: KueueTeam, operator: Operator) -> None:
    running = team.submit("running", gpus=2)
    running.runs()
    waiting = team.submit("waiting")
    waiting.waits("WaitingForQuota")
    operator.kill()
    for job in (running, waiting):
        job.delete()
    operator.restart()
    gone(team, running, waiting)


def test_operator_starts_while_kueue_is_down(team: KueueTeam, operator: Operator, kueue: Kueue) -> None:
    running = team.submit("running", gpus=2)
    running.runs()
    kueue.kill()
    operator.kill()
    new = team.submit("new")
    operator.restart()
    new.waits("WebhookUnavailable")
    assert running.status()["phase"] == "Running"
    kueue.start()
    new.waits("WaitingForQuota")
    running.succeed()
    new.runs()


def test_deactivation_by_a_user_is_reported_with_the_remedy(team: KueueTeam, kubernetes: Kubernetes) -> None:
    job = team.submit("job")
    job.runs()
    found = job.workload()
    assert found is not None
    name = found["metadata"]["name"]
    kubernetes.client.patch(f"{GROUP}/namespaces/{team.namespace}/workloads/{name}", {"spec": {"active": False}})
    message = job.waits("Deactivated")["message"]
    assert message.startswith("Its Workload was deactivated, not by spec.suspend: The workload is deactivated.")
    command = message.split(" queues it again by ")[1].rstrip(".")
    kubernetes.kubectl(*shlex.split(command)[1:])
    job.runs(attempts=2)


def test_examples_are_accepted(team: KueueTeam, kubernetes: Kubernetes) -> None:
    folder = ROOT / "examples/kueue"
    arguments = ("apply", "--validate=strict", "--dry-run=server", "-n", "default")
    kubernetes.kubectl(*arguments, "-f", str(folder / "queues.yaml"), "-f", str(folder / "job.yaml"))
