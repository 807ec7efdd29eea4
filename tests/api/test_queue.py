"""The builtin queue on a real control plane: real scheduler and Job controller, fake nodes of 8 GPUs whose pods end.

Many jobs at once, and an operator that is killed again and again, are in test_queue_scale.py.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.api import kwok_support
from tests.api.gateway_support import Kubernetes, sample, until
from tests.api.operator_support import Operator, leading
from tests.api.status_history_support import Told
from trainyard_crds.constants import ADMITTED_ANNOTATION

Object = dict[str, Any]
CLAIM, SHORT, LONG = "models", "queue-short", "queue-long"
NODES = 2
TRAINING_JOBS = f"/apis/trainyard.dev/v1alpha1/namespaces/{LONG}/trainingjobs"


@pytest.fixture(scope="module")
def kubernetes() -> Iterator[Kubernetes]:
    name = f"test-queue-{os.getpid()}"
    with kwok_support.control_plane(name, nodes=NODES, seconds={SHORT: 1.0}) as kubernetes:
        for namespace in (SHORT, LONG):
            kwok_support.prepare_namespace(kubernetes, namespace, CLAIM)
        yield kubernetes


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "policy.json"
    path.write_text("{}")
    return path


@pytest.fixture(scope="module")
def operator(kubernetes: Kubernetes, policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    with leading(
        Operator(kubernetes, tmp_path_factory.mktemp("operator"), "queue", TRAINYARD_QUEUE_POLICY=str(policy))
    ) as operator:
        yield operator


@pytest.fixture
def yard(kubernetes: Kubernetes, operator: Operator, policy: Path) -> Iterator[Yard]:
    """The jobs of one test; they are gone, and their GPUs free, when it ends."""
    policy.write_text("{}")
    yard = Yard(kubernetes, operator)
    yield yard
    yard.told.stop()
    policy.write_text("{}")
    kubernetes.kubectl("delete", "trainingjobs", "--all", "-n", LONG, "--wait=true")
    until(lambda: not yard.pods())


class Yard:
    """TrainingJobs whose pods run until they are told to end."""

    def __init__(self, kubernetes: Kubernetes, operator: Operator) -> None:
        self.kubernetes, self.client, self.operator = kubernetes, kubernetes.client, operator
        self.told = Told(kubernetes, LONG)

    def submit(self, name: str, gpus: int = 1, **spec: Any) -> None:
        body = kwok_support.training_job(LONG, name, claim=CLAIM, gpus=gpus, **spec)
        self.client.apply(f"{TRAINING_JOBS}/{name}", body)

    def read(self, name: str) -> Object:
        found: Object = self.client.get(f"{TRAINING_JOBS}/{name}")
        return found

    def status(self, name: str) -> Object:
        found: Object = self.read(name).get("status", {})
        return found

    def wait(self, name: str, phase: str, reason: str | None = None, **queue: Any) -> Object:
        """Wait for a phase with what stands in `status.queue`."""
        wanted = queue if reason is None else {"reason": reason, **queue}

        def is_so(status: Object) -> bool:
            return status.get("phase") == phase and wanted.items() <= (status.get("queue") or {}).items()

        return self.told.wait(name, is_so)

    def delete(self, name: str) -> None:
        self.client.delete(f"{TRAINING_JOBS}/{name}")

    def child(self, name: str) -> Object:
        found: Object = self.client.get(f"/apis/batch/v1/namespaces/{LONG}/jobs/{self.status(name)['jobName']}")
        return found

    def queue(self, part: str) -> dict[str, Object]:
        """One part of what the operator says of the queue, by the jobs' names."""
        return {row["name"]: row for row in self.operator.told("/queue")[part]}

    def holds(self, name: str) -> bool:
        return name in self.queue("holding")

    @contextmanager
    def asleep(self, part: str) -> Iterator[None]:
        """Stop a part of the control plane for a moment."""
        process = self.kubernetes.cluster.plane.processes.pid(part)
        assert process is not None
        os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(process, signal.SIGCONT)

    def pods(self) -> list[Object]:
        found: list[Object] = self.client.get(f"/api/v1/namespaces/{LONG}/pods")["items"]
        return found


def test_jobs_wait_in_order_with_place_reason_and_a_remedy(yard: Yard) -> None:
    for name in ("full-0", "full-1"):
        yard.submit(name, 8)
        yard.wait(name, "Running")
    yard.submit("first")
    yard.wait("first", "Queued")
    yard.submit("second")
    yard.wait("second", "Queued")
    yard.submit("urgent", 8, queue={"priority": 9})
    urgent = yard.wait("urgent", "Queued", "WaitingForGpus", position=1, length=3)
    assert urgent["message"] == "It needs 8 GPUs on one node; the most free is 0."
    assert urgent["queue"]["pool"] == "nvidia.com/gpu (type=kwok)"
    assert re.fullmatch(r"2\d{3}-.*\.\d{6}Z", urgent["queue"]["enqueuedAt"])
    until(lambda: yard.status("second")["queue"].get("position") == 3)
    printed = yard.kubernetes.kubectl("get", "tj", "second", "-n", LONG, "-o", "wide")
    assert "3 of 3" in printed
    yard.delete("full-1")
    yard.wait("urgent", "Running")
    assert yard.status("first")["phase"] == "Queued"
    assert yard.status("urgent")["queue"].keys() == {"pool", "enqueuedAt"}
    yard.delete("full-0")
    yard.wait("first", "Running")
    yard.wait("second", "Running")


def test_a_priority_that_is_changed_moves_a_waiting_job_at_once(yard: Yard) -> None:
    for name in ("full-0", "full-1"):
        yard.submit(name, 8)
        yard.wait(name, "Running")
    for name in ("a", "b"):
        yard.submit(name, 8)
        yard.wait(name, "Queued")
    yard.kubernetes.kubectl(
        "patch", "tj", "b", "-n", LONG, "--type=merge", "-p", json.dumps({"spec": {"queue": {"priority": 7}}})
    )
    until(lambda: yard.status("b")["queue"].get("position") == 1)
    yard.delete("full-0")
    yard.wait("b", "Running")
    assert yard.status("a")["phase"] == "Queued"


def test_what_can_never_fit_says_what_there_is_and_blocks_nobody(yard: Yard) -> None:
    yard.submit("huge", 16)
    found = yard.wait("huge", "Queued", "ExceedsCapacity")
    assert found["message"] == (
        "It needs 16 GPUs on one node; the largest node of nvidia.com/gpu (type=kwok) has 8. Lower spec.resources.gpus."
    )
    yard.submit("small")
    yard.wait("small", "Running")


def test_a_held_queue_starts_nothing_until_it_is_released(yard: Yard, policy: Path) -> None:
    policy.write_text('{"held": true}')
    until(lambda: '\\"held\\": true' in yard.operator.log())
    yard.submit("job")
    yard.wait("job", "Queued", "QueueHeld")
    policy.write_text('{"held": "no"}')
    until(lambda: "it should be a valid boolean" in yard.operator.log())
    settings = yard.operator.told("/queue")["settings"]
    assert (settings["held"], 'held is "no"' in settings["fault"]) == (True, True)
    assert sample(yard.operator.get("/metrics")[1], "trainyard_queue_settings_wrong") == 1
    assert sample(yard.operator.get("/metrics")[1], "trainyard_queue_held") == 1
    assert yard.status("job")["phase"] == "Queued"
    policy.write_text("{}")
    yard.wait("job", "Running")


def test_a_job_of_higher_priority_preempts_and_the_other_resumes(yard: Yard, policy: Path) -> None:
    policy.write_text('{"preemption": true}')
    until(lambda: '\\"preemption\\": true' in yard.operator.log())
    for name in ("low-0", "low-1"):
        yard.submit(name, 8, queue={"priority": 1})
        yard.wait(name, "Running")
    child = yard.status("low-1")["jobName"]
    uid = yard.client.get(f"/apis/batch/v1/namespaces/{LONG}/jobs/{child}")["metadata"]["uid"]
    yard.submit("high", 8, queue={"priority": 9})
    yard.wait("high", "Running")
    assert yard.status("low-0")["phase"] == "Running", "the one that was let in last makes room"
    low = yard.wait("low-1", "Queued", position=1)
    assert low["attempts"][-1]["exitCode"] == 75
    yard.delete("high")
    low = yard.wait("low-1", "Running")
    assert len(low["attempts"]) == 2
    assert low["attemptCounts"]["failed"] == 0
    assert yard.client.get(f"/apis/batch/v1/namespaces/{LONG}/jobs/{child}")["metadata"]["uid"] == uid


def test_an_operator_killed_in_the_middle_of_a_preemption_does_not_resume_who_makes_room(
    yard: Yard, policy: Path
) -> None:
    policy.write_text('{"preemption": true}')
    until(lambda: '\\"preemption\\": true' in yard.operator.log())
    for name in ("low-0", "low-1"):
        yard.submit(name, 8, queue={"priority": 1})
        yard.wait(name, "Running")
    with yard.asleep("kwok"):  # its pod saves for as long as that
        yard.submit("high", 8, queue={"priority": 9})
        yard.wait("low-1", "Suspending")
        yard.operator.kill()
        yard.operator.restart()
        until(lambda: yard.queue("holding").get("low-1", {}).get("leaving"))
        yard.wait("high", "Queued", "WaitingForPreempted")
        assert yard.child("low-1")["metadata"]["generation"] == 2, "its Job was made and suspended, and no more"
    yard.wait("high", "Running")
    low = yard.wait("low-1", "Queued", "WaitingForGpus", position=1)
    assert yard.child("low-1")["metadata"]["generation"] == 2
    assert len(low["attempts"]) == 1


def test_foreign_pods_and_cordons_count(yard: Yard) -> None:
    yard.kubernetes.apply(foreign_pod("kwok-0", 1))
    yard.kubernetes.kubectl("cordon", "kwok-1")
    try:
        until(lambda: gpus(yard.operator) == {"kwok-0": (True, 1), "kwok-1": (False, 0)})
        yard.submit("job", 8)
        found = yard.wait("job", "Queued", "WaitingForGpus")
        assert found["message"] == "It needs 8 GPUs on one node; the most free is 7."
    finally:
        yard.kubernetes.kubectl("uncordon", "kwok-1")
        yard.client.delete(f"/api/v1/namespaces/{LONG}/pods/foreign")
    yard.wait("job", "Running")


def foreign_pod(node: str, gpus: int) -> Object:
    """A pod that takes GPUs past the scheduler."""
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


def test_a_job_whose_gpus_a_foreign_pod_took_waits_in_its_old_place_and_holds_up_nobody(
    yard: Yard, policy: Path
) -> None:
    with yard.asleep("scheduler"):
        for name in ("one", "two"):
            yard.submit(name, 8)
            until(partial(yard.holds, name))
        yard.kubernetes.apply(foreign_pod("kwok-1", 4))
    until(lambda: "Running" in {yard.status(name).get("phase") for name in ("one", "two")})
    policy.write_text('{"startSeconds": 5}')
    until(lambda: {yard.status(name).get("phase") for name in ("one", "two")} == {"Running", "Queued"})
    late = "one" if yard.status("one")["phase"] == "Queued" else "two"
    policy.write_text("{}")  # others may take longer
    yard.submit("small", 4)
    yard.wait("small", "Running")
    status = yard.wait(late, "Queued", "BackingOff")
    assert "Insufficient nvidia.com/gpu" in status["message"]
    assert status["queue"]["failedStarts"]["count"] == 1
    child = yard.child(late)
    assert (child["spec"]["suspend"], child["metadata"]["generation"]) == (True, 2)
    yard.operator.kill()
    yard.operator.restart()
    yard.submit("behind", 8)
    yard.wait("behind", "Queued", "WaitingForGpus")
    again = yard.status(late)["queue"]
    assert (again["failedStarts"], again["position"]) == (status["queue"]["failedStarts"], 1)
    yard.client.delete(f"/api/v1/namespaces/{LONG}/pods/foreign")
    yard.wait(late, "Queued", "WaitingForGpus")  # its time has come, and it is first again
    yard.delete("small")
    status = yard.wait(late, "Running")
    assert "failedStarts" not in status["queue"]
    assert yard.status("behind")["phase"] == "Queued"


@pytest.fixture
def quota(yard: Yard) -> Iterator[Callable[[int], None]]:
    """Sets the GPUs that the namespace may use; nothing is limited in the end."""
    path = f"/api/v1/namespaces/{LONG}/resourcequotas/gpus"

    def limit(gpus: int) -> None:
        spec = {"hard": {"requests.nvidia.com/gpu": str(gpus)}}
        body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "gpus", "namespace": LONG}}
        yard.client.apply(path, {**body, "spec": spec})

    yield limit
    yard.client.delete(path)


def test_a_namespace_without_quota_is_told_its_numbers_and_holds_up_nobody(
    yard: Yard, quota: Callable[[int], None]
) -> None:
    quota(4)
    yard.submit("uses", 4)
    yard.wait("uses", "Running")
    yard.submit("short", 2, queue={"priority": 9})
    told = f"Namespace {LONG} may use 4 nvidia.com/gpu (ResourceQuota gpus) and uses 4; this job needs 2."
    yard.told.wait("short", lambda status: status.get("message") == told)
    assert yard.wait("short", "Queued", "QuotaExceeded")["message"] == told
    free = f"/apis/trainyard.dev/v1alpha1/namespaces/{SHORT}/trainingjobs/free"
    yard.client.apply(free, kwok_support.training_job(SHORT, "free", claim=CLAIM, gpus=1))
    yard.kubernetes.kubectl("wait", "tj/free", "-n", SHORT, "--for=condition=Complete", "--timeout=300s")
    yard.client.delete(free)
    yard.submit("cpu", 0)
    yard.wait("cpu", "Running")
    yard.submit("second", 2)
    yard.wait("second", "Queued", "QuotaExceeded")
    quota(6)
    yard.wait("short", "Running")
    assert yard.status("second")["phase"] == "Queued"
    yard.delete("uses")
    yard.wait("second", "Running")


def test_a_pod_that_a_quota_refuses_gives_back_the_gpus_and_says_which(
    yard: Yard, policy: Path, quota: Callable[[int], None]
) -> None:
    with yard.asleep("controller-manager"):
        yard.submit("late", 2)
        until(lambda: yard.status("late").get("jobName"))
        quota(1)
        enforce(yard, 1)
        yard.submit("probe", 2)
        yard.wait("probe", "Queued", "QuotaExceeded")
        until(partial(is_refused, yard, foreign_pod("kwok-0", 2)))
    policy.write_text('{"startSeconds": 5}')
    status = yard.wait("late", "Queued", "QuotaExceeded")
    failed = status["queue"]["failedStarts"]
    assert failed["count"] == 1
    assert failed["message"] == status["message"]
    assert failed["message"].startswith(f"Namespace {LONG} may use 1 nvidia.com/gpu (ResourceQuota gpus) and uses 0")
    assert yard.child("late")["spec"]["suspend"] is True
    yard.delete("probe")
    quota(2)
    # Now only its time keeps it, if that has not come yet.
    found = yard.told.wait("late", lambda told: told["phase"] != "Queued" or told["queue"]["reason"] == "BackingOff")
    assert found["phase"] == "Queued" or admitted(yard, "late") >= moment(failed["notBefore"])


def admitted(yard: Yard, name: str) -> datetime:
    """When the operator let a job in for the last time."""
    return moment(yard.child(name)["metadata"]["annotations"][ADMITTED_ANNOTATION])


def moment(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp)


def enforce(yard: Yard, gpus: int) -> None:
    """What the quota controller does, which sleeps: the API server goes by a quota's status."""
    status = {"hard": {"requests.nvidia.com/gpu": str(gpus)}, "used": {"requests.nvidia.com/gpu": "0"}}
    yard.client.patch(f"/api/v1/namespaces/{LONG}/resourcequotas/gpus/status", {"status": status})


def is_refused(yard: Yard, pod: Object) -> bool:
    """Whether a quota keeps the API server from creating a pod."""
    try:
        yard.kubernetes.kubectl("create", "--dry-run=server", "-f", "-", text=json.dumps(pod))
    except AssertionError as error:
        return "quota" in str(error)
    return False


def gpus(operator: Operator) -> dict[str, tuple[bool, int]]:
    """What the operator says of each node: whether it is open, and the GPUs that are held."""
    nodes = operator.told("/gpus")["nodes"]
    return {node["name"]: (node["open"], node["held"].get("nvidia.com/gpu", 0)) for node in nodes}
