"""Changes by others to a job's objects: finalizers, labels, suspension, TTL, evictions, injected containers."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.api.gateway_support import until
from tests.api.operator_support import IMAGE, Operator, Pod, Team, TrainingJob, termination
from trainyard_crds.constants import MANAGED_BY, MANAGED_BY_LABEL, ROLE_LABEL

Object = dict[str, Any]
pytestmark = pytest.mark.api
TMP_FULL = 'Usage of EmptyDir volume "tmp" exceeds the limit "10Gi".'


def container(name: str, state: Object) -> Object:
    return {"name": name, "image": IMAGE, "imageID": "", "ready": False, "restartCount": 0, "state": state}


def ended(code: int, message: str = "") -> Object:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    times = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": now}
    return {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed", "message": message, **times}}


def report_status(pod: Pod, **status: Any) -> None:
    """Write a pod's status, as the kubelet does."""
    pod.client.patch(f"{pod.path}/status", {"status": status})


def evict(pod: Pod, code: int) -> None:
    """Evict a pod for its use of storage: the container's end comes first, the kubelet's verdict after it."""
    report_status(pod, phase="Running", containerStatuses=[container("trainer", ended(code))])
    report_status(pod, phase="Failed", reason="Evicted", message=TMP_FULL)


def test_evictions_for_storage_count_each_time_with_the_limit_to_raise(operator: Operator, team: Team) -> None:
    job = team.create("full", retry={"limit": 1})
    evict(job.run(), 75)
    first = until(lambda: [entry for entry in job.status().get("attempts", []) if "finishedAt" in entry])[0]
    assert (first["reason"], first["exitCode"]) == ("EvictedByKubelet", 75)
    pod = until(lambda: next((p for p in job.pods() if p["status"].get("phase") == "Pending"), None))
    second = Pod(job, pod["metadata"]["name"])
    second.start()
    job.wait("Running")
    evict(second, 75)
    status = job.wait("Failed")
    assert TMP_FULL in status["message"]
    assert "Raise spec.resources.tmpSize." in status["message"]
    assert "Attempts that count as faults: 2, spec.retry.limit: 1." in status["message"]
    until(lambda: not team.names("jobs", "batch/v1"))


@pytest.mark.parametrize(
    ("code", "outcome", "phase"), [(0, "Finished", "Succeeded"), (65, "Failed", "Failed")], ids=["finished", "bad data"]
)
def test_trainers_end_ends_a_pod_with_an_injected_container(
    operator: Operator, team: Team, code: int, outcome: str, phase: str
) -> None:
    job = team.create("meshed")
    pod = job.run()
    proxy = container("istio-proxy", {"running": {"startedAt": "2026-01-01T00:00:00Z"}})
    text = termination(outcome, step=100, message="Over.", exit_code=code)
    report_status(pod, phase="Running", containerStatuses=[container("trainer", ended(code, text)), proxy])
    status = job.wait(phase)
    assert status["message"].startswith("Over.")
    assert "istio-proxy" in status["message"]
    until(lambda: not team.names("jobs", "batch/v1"))


def test_job_with_foreign_labels_trains_on_and_is_found_again(operator: Operator, team: Team) -> None:
    job = team.create("relabelled")
    pod = job.run()
    uid = job.child()["metadata"]["uid"]
    job.client.patch(job.child_path, {"metadata": {"labels": {MANAGED_BY_LABEL: "x", ROLE_LABEL: "y"}}})
    until(lambda: job.child()["metadata"]["labels"][MANAGED_BY_LABEL] == MANAGED_BY)
    assert job.status()["phase"] == "Running"
    job.finish(pod)
    job.wait("Succeeded")
    assert job.child()["metadata"]["uid"] == uid


def test_job_that_its_ttl_deleted_while_the_operator_was_down_has_succeeded(operator: Operator, team: Team) -> None:
    job = team.create("expired")
    pod = job.run()
    operator.kill()
    job.client.patch(job.child_path, {"spec": {"ttlSecondsAfterFinished": 1}})
    job.finish(pod)
    until(lambda: not team.names("jobs", "batch/v1"))
    operator.restart()
    check = job.pod("check")
    check.end(0, termination("Finished", step=100, message="Training finished after 100 steps."))
    status = job.wait("Succeeded")
    assert status["message"] == "Training finished after 100 steps."


def test_deleted_job_frees_its_gpus_though_a_foreign_finalizer_keeps_it(operator: Operator, team: Team) -> None:
    job = team.create("kept")
    pod = job.run()
    job.client.patch(job.path, {"metadata": {"finalizers": ["example.com/audit"]}})
    job.delete()
    try:
        pod.wait_for_deletion()
        assert job.status()["phase"] == "Stopping"
        pod.end(75, termination("Interrupted", step=7, message="Saved.", exit_code=75))
        pod.remove()
        status = job.wait("Stopped")
        assert "example.com/audit" in status["message"]
    finally:
        job.client.patch(job.path, {"metadata": {"finalizers": None}})


def test_suspension_by_another_client_is_reported_and_not_undone(operator: Operator, team: Team) -> None:
    job = team.create("paused")
    pod = job.run()
    suspend(job, "true")
    pod.wait_for_deletion()
    pod.end(75, termination("Interrupted", step=7, message="Saved.", exit_code=75))
    pod.remove()
    status = job.wait("Suspended")
    assert "was suspended by kubectl-patch" in status["message"]
    assert job.child()["spec"]["suspend"]
    job.patch(suspend=True)
    until(lambda: job.condition("Suspended").get("reason") == "SuspendedByUser")
    job.patch(suspend=False)
    job.run()


def suspend(job: TrainingJob, value: str) -> None:
    patch = json.dumps({"spec": {"suspend": value == "true"}})
    job.team.kubernetes.kubectl("patch", "job", job.child_name, "-n", job.team.namespace, "--type=merge", "-p", patch)
