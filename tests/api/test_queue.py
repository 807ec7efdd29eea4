"""The builtin queue on a real control plane: real scheduler and Job controller, fake nodes of 8 GPUs.

test_queue_scale.py has many jobs and repeated kills of the operator.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.api import kwok_support
from tests.api.gateway_support import Kubernetes, sample, until
from tests.api.operator_support import Operator, leading
from tests.api.queue_support import QueueCluster

Object = dict[str, Any]
CLAIM, SHORT, LONG = "models", "queue-short", "queue-long"
NODES = 2


@pytest.fixture(scope="module")
def kubernetes() -> Iterator[Kubernetes]:
    name = f"test-queue-{os.getpid()}"
    with kwok_support.control_plane(name, nodes=NODES, seconds={SHORT: 1.0}) as kubernetes:
        for namespace in (SHORT, LONG):
            kwok_support.prepare_namespace(kubernetes, namespace, CLAIM)
        yield kubernetes


@pytest.fixture(scope="module")
def operator(kubernetes: Kubernetes, policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    with leading(
        Operator(kubernetes, tmp_path_factory.mktemp("operator"), "queue", TRAINYARD_QUEUE_POLICY=str(policy))
    ) as operator:
        yield operator


@pytest.fixture
def cluster(kubernetes: Kubernetes, operator: Operator, policy: Path) -> Iterator[QueueCluster]:
    """A cluster whose jobs are deleted and whose GPUs are free after the test."""
    policy.write_text("{}")
    cluster = QueueCluster(kubernetes, operator, LONG, CLAIM)
    yield cluster
    cluster.history.stop()
    policy.write_text("{}")
    kubernetes.kubectl("delete", "trainingjobs", "--all", "-n", LONG, "--wait=true")
    kubernetes.kubectl("delete", "pod", "foreign", "-n", LONG, "--ignore-not-found", "--wait=false")
    until(lambda: not cluster.pods())


def test_jobs_wait_in_order_with_position_and_reason(cluster: QueueCluster) -> None:
    for name in ("full-0", "full-1"):
        cluster.submit(name, 8)
        cluster.wait(name, "Running")
    cluster.submit("first")
    cluster.wait("first", "Queued")
    cluster.submit("second")
    cluster.wait("second", "Queued")
    cluster.submit("urgent", 8, queue={"priority": 9})
    urgent = cluster.wait("urgent", "Queued", "WaitingForGpus", position=1, length=3)
    assert urgent["message"] == "It needs 8 GPUs on one node; the most free is 0."
    assert urgent["queue"]["pool"] == "nvidia.com/gpu (type=kwok)"
    assert re.fullmatch(r"2\d{3}-.*\.\d{6}Z", urgent["queue"]["enqueuedAt"])
    until(lambda: cluster.status("second")["queue"].get("position") == 3)
    printed = cluster.kubernetes.kubectl("get", "tj", "second", "-n", LONG, "-o", "wide")
    assert "3 of 3" in printed
    cluster.delete("full-1")
    cluster.wait("urgent", "Running")
    assert cluster.status("first")["phase"] == "Queued"
    assert cluster.status("urgent")["queue"].keys() == {"pool", "enqueuedAt"}
    cluster.delete("full-0")
    cluster.wait("first", "Running")
    cluster.wait("second", "Running")


def test_changed_priority_moves_a_waiting_job(cluster: QueueCluster) -> None:
    for name in ("full-0", "full-1"):
        cluster.submit(name, 8)
        cluster.wait(name, "Running")
    for name in ("a", "b"):
        cluster.submit(name, 8)
        cluster.wait(name, "Queued")
    cluster.kubernetes.kubectl(
        "patch", "tj", "b", "-n", LONG, "--type=merge", "-p", json.dumps({"spec": {"queue": {"priority": 7}}})
    )
    until(lambda: cluster.status("b")["queue"].get("position") == 1)
    cluster.delete("full-0")
    cluster.wait("b", "Running")
    assert cluster.status("a")["phase"] == "Queued"


def test_job_that_exceeds_capacity_blocks_no_other_job(cluster: QueueCluster) -> None:
    cluster.submit("huge", 16)
    found = cluster.wait("huge", "Queued", "ExceedsCapacity")
    assert found["message"] == (
        "It needs 16 GPUs on one node; the largest node of nvidia.com/gpu (type=kwok) has 8. Lower spec.resources.gpus."
    )
    cluster.submit("small")
    cluster.wait("small", "Running")


def test_held_queue_starts_no_job_until_release(cluster: QueueCluster, policy: Path) -> None:
    policy.write_text('{"held": true}')
    until(lambda: '\\"held\\": true' in cluster.operator.log())
    cluster.submit("job")
    cluster.wait("job", "Queued", "QueueHeld")
    policy.write_text('{"held": "no"}')
    until(lambda: "it should be a valid boolean" in cluster.operator.log())
    settings = cluster.operator.get_json("/queue")["settings"]
    assert (settings["held"], 'held is "no"' in settings["fault"]) == (True, True)
    assert sample(cluster.operator.get("/metrics")[1], "trainyard_queue_settings_wrong") == 1
    assert sample(cluster.operator.get("/metrics")[1], "trainyard_queue_held") == 1
    assert cluster.status("job")["phase"] == "Queued"
    policy.write_text("{}")
    cluster.wait("job", "Running")


def test_higher_priority_preempts_and_the_victim_resumes(cluster: QueueCluster, policy: Path) -> None:
    policy.write_text('{"preemption": true}')
    until(lambda: '\\"preemption\\": true' in cluster.operator.log())
    for name in ("low-0", "low-1"):
        cluster.submit(name, 8, queue={"priority": 1})
        cluster.wait(name, "Running")
    child = cluster.status("low-1")["jobName"]
    uid = cluster.client.get(f"/apis/batch/v1/namespaces/{LONG}/jobs/{child}")["metadata"]["uid"]
    cluster.submit("high", 8, queue={"priority": 9})
    cluster.wait("high", "Running")
    assert cluster.status("low-0")["phase"] == "Running", "the most recently admitted job is preempted"
    low = cluster.wait("low-1", "Queued", position=1)
    assert low["attempts"][-1]["exitCode"] == 75
    cluster.delete("high")
    low = cluster.wait("low-1", "Running")
    assert len(low["attempts"]) == 2
    assert low["attemptCounts"]["failed"] == 0
    assert cluster.client.get(f"/apis/batch/v1/namespaces/{LONG}/jobs/{child}")["metadata"]["uid"] == uid


def test_operator_killed_during_a_preemption_does_not_resume_the_victim(cluster: QueueCluster, policy: Path) -> None:
    policy.write_text('{"preemption": true}')
    until(lambda: '\\"preemption\\": true' in cluster.operator.log())
    for name in ("low-0", "low-1"):
        cluster.submit(name, 8, queue={"priority": 1})
        cluster.wait(name, "Running")
    with cluster.paused("kwok"):  # the pod keeps saving for as long as that
        cluster.submit("high", 8, queue={"priority": 9})
        cluster.wait("low-1", "Suspending")
        cluster.operator.kill()
        cluster.operator.restart()
        until(lambda: cluster.rows("holding").get("low-1", {}).get("leaving"))
        cluster.wait("high", "Queued", "WaitingForPreempted")
        assert cluster.child("low-1")["metadata"]["generation"] == 2, "its Job was created and suspended, nothing else"
    cluster.wait("high", "Running")
    low = cluster.wait("low-1", "Queued", "WaitingForGpus", position=1)
    assert cluster.child("low-1")["metadata"]["generation"] == 2
    assert len(low["attempts"]) == 1


def test_foreign_pods_and_cordoned_nodes_reduce_capacity(cluster: QueueCluster) -> None:
    cluster.kubernetes.apply(foreign_pod("kwok-0", 1))
    cluster.kubernetes.kubectl("cordon", "kwok-1")
    try:
        until(lambda: gpus(cluster.operator) == {"kwok-0": (True, 1), "kwok-1": (False, 0)})
        cluster.submit("job", 8)
        found = cluster.wait("job", "Queued", "WaitingForGpus")
        assert found["message"] == (
            "It needs 8 GPUs on one node; the most free is 7. Nodes of nvidia.com/gpu (type=kwok) that take no pods: 1 "
            "cordoned."
        )
    finally:
        cluster.kubernetes.kubectl("uncordon", "kwok-1")
        cluster.client.delete(f"/api/v1/namespaces/{LONG}/pods/foreign")
    cluster.wait("job", "Running")


def foreign_pod(node: str, gpus: int) -> Object:
    """A pod that bypasses the scheduler."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "foreign", "namespace": LONG},
        "spec": {
            "nodeName": node,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "c", "image": "x", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}],
        },
    }


def test_start_timeout_requeues_a_job_whose_gpus_a_foreign_pod_took(cluster: QueueCluster, policy: Path) -> None:
    with cluster.paused("scheduler"):
        with cluster.paused("controller-manager"):  # so that the scheduler receives the foreign pod first
            for name in ("one", "two"):
                cluster.submit(name, 8)
                until(partial(cluster.holds, name))
            cluster.kubernetes.apply(foreign_pod("kwok-1", 4))
        until(lambda: len(cluster.pods()) == 3)
    until(lambda: "Running" in {cluster.status(name).get("phase") for name in ("one", "two")})
    policy.write_text('{"startSeconds": 5}')
    until(lambda: {cluster.status(name).get("phase") for name in ("one", "two")} == {"Running", "Queued"})
    late = "one" if cluster.status("one")["phase"] == "Queued" else "two"
    policy.write_text("{}")  # no start timeout for the other jobs
    cluster.submit("small", 4)
    cluster.wait("small", "Running")
    status = cluster.wait(late, "Queued", "BackingOff")
    assert "Insufficient nvidia.com/gpu" in status["message"]
    assert status["queue"]["failedStarts"]["count"] == 1
    child = cluster.child(late)
    assert (child["spec"]["suspend"], child["metadata"]["generation"]) == (True, 2)
    cluster.operator.kill()
    cluster.operator.restart()
    cluster.submit("behind", 8)
    cluster.wait("behind", "Queued", "WaitingForGpus")
    again = cluster.status(late)["queue"]
    assert (again["failedStarts"], again["position"]) == (status["queue"]["failedStarts"], 1)
    cluster.client.delete(f"/api/v1/namespaces/{LONG}/pods/foreign")
    cluster.wait(late, "Queued", "WaitingForGpus")  # its backoff is over
    cluster.delete("small")
    status = cluster.wait(late, "Running")
    assert "failedStarts" not in status["queue"]
    assert cluster.status("behind")["phase"] == "Queued"


@pytest.fixture
def quota(cluster: QueueCluster) -> Iterator[Callable[[int], None]]:
    """Set the GPU quota of the namespace; removed after the test."""
    path = f"/api/v1/namespaces/{LONG}/resourcequotas/gpus"

    def limit(gpus: int) -> None:
        spec = {"hard": {"requests.nvidia.com/gpu": str(gpus)}}
        body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "gpus", "namespace": LONG}}
        cluster.client.apply(path, {**body, "spec": spec})

    yield limit
    cluster.client.delete(path)


def test_exhausted_quota_is_reported_and_blocks_no_other_job(
    cluster: QueueCluster, quota: Callable[[int], None]
) -> None:
    quota(4)
    cluster.submit("uses", 4)
    cluster.wait("uses", "Running")
    cluster.submit("short", 2, queue={"priority": 9})
    message = f"Namespace {LONG} may use 4 nvidia.com/gpu (ResourceQuota gpus) and uses 4; this job needs 2."
    cluster.history.wait("short", lambda status: status.get("message") == message)
    assert cluster.wait("short", "Queued", "QuotaExceeded")["message"] == message
    free = f"/apis/trainyard.dev/v1alpha1/namespaces/{SHORT}/trainingjobs/free"
    cluster.client.apply(free, kwok_support.training_job(SHORT, "free", claim=CLAIM, gpus=1))
    cluster.kubernetes.kubectl("wait", "tj/free", "-n", SHORT, "--for=condition=Complete", "--timeout=300s")
    cluster.client.delete(free)
    cluster.submit("cpu", 0)
    cluster.wait("cpu", "Running")
    cluster.submit("second", 2)
    cluster.wait("second", "Queued", "QuotaExceeded")
    quota(6)
    cluster.wait("short", "Running")
    assert cluster.status("second")["phase"] == "Queued"
    cluster.delete("uses")
    cluster.wait("second", "Running")


def test_pod_refused_by_a_quota_requeues_its_job(
    cluster: QueueCluster, policy: Path, quota: Callable[[int], None]
) -> None:
    with cluster.paused("controller-manager"):
        cluster.submit("late", 2)
        until(lambda: cluster.status("late").get("jobName"))
        quota(1)
        enforce(cluster, 1)
        cluster.submit("probe", 2)
        cluster.wait("probe", "Queued", "QuotaExceeded")
        until(partial(is_refused, cluster, foreign_pod("kwok-0", 2)))
    policy.write_text('{"startSeconds": 5}')
    status = cluster.wait("late", "Queued", "QuotaExceeded")
    failed = status["queue"]["failedStarts"]
    assert failed["count"] == 1
    assert failed["message"] == status["message"]
    assert failed["message"].startswith(f"Namespace {LONG} may use 1 nvidia.com/gpu (ResourceQuota gpus) and uses 0")
    assert cluster.child("late")["spec"]["suspend"] is True
    cluster.delete("probe")
    quota(2)
    cluster.wait("late", "Running")
    restarted = cluster.child("late")["status"]["startTime"]
    assert moment(restarted) >= moment(failed["notBefore"]), "it backs off although the quota has headroom"


def moment(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp)


def enforce(cluster: QueueCluster, gpus: int) -> None:
    """Write the quota's status in place of the paused quota controller; the API server enforces the status."""
    status = {"hard": {"requests.nvidia.com/gpu": str(gpus)}, "used": {"requests.nvidia.com/gpu": "0"}}
    cluster.client.patch(f"/api/v1/namespaces/{LONG}/resourcequotas/gpus/status", {"status": status})


def is_refused(cluster: QueueCluster, pod: Object) -> bool:
    """Return whether a quota refuses the creation of a pod."""
    try:
        cluster.kubernetes.kubectl("create", "--dry-run=server", "-f", "-", text=json.dumps(pod))
    except AssertionError as error:
        return "quota" in str(error)
    return False


def gpus(operator: Operator) -> dict[str, tuple[bool, int]]:
    """Return for each node of the debug view whether it is schedulable, and its held GPUs."""
    nodes = operator.get_json("/gpus")["nodes"]
    return {node["name"]: (node["open"], node["held"].get("nvidia.com/gpu", 0)) for node in nodes}
