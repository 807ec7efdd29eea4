"""The operator against a real API server, Job controller and garbage collector; the tests act as the kubelet."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.chart_support import NAMESPACE as SYSTEM
from tests.api.gateway_support import TIMEOUT, Kubernetes, until
from tests.api.operator_support import (
    SPEC,
    USER,
    Operator,
    Team,
    TrainingJob,
    requests_by,
    team_namespace,
    termination,
)

pytestmark = pytest.mark.api


def wait_for_processing(team: Team) -> None:
    """Run another job to its end, after which the operator has processed all earlier events."""
    job = team.create(f"witness-{uuid.uuid4().hex[:8]}")
    job.finish(job.run())
    job.wait("Succeeded")


@pytest.fixture
def elsewhere(control_plane: Kubernetes) -> Iterator[Team]:
    """Another namespace."""
    with team_namespace(control_plane, "elsewhere") as made:
        yield made


def test_job_from_apply_to_succeeded(operator: Operator, team: Team) -> None:
    job = team.create("life")
    pod = job.pod()  # accepted by the API server under Pod Security `restricted`
    status = until(lambda: status if (status := job.status()).get("attempts") else None)
    assert (status["phase"], status["attempts"][0]["pod"]) == ("Starting", pod.name)
    assert status["attempts"][0]["podUID"]
    pod.start()
    assert job.wait("Running")["startTime"]
    job.finish(pod)
    status = job.wait("Succeeded")
    assert (status["summary"]["progress"], status["metrics"]["loss"]) == ("100%", 0.25)
    assert status["checkpoints"][0]["name"] == "step-100-e1"
    assert [job.condition(kind)["status"] for kind in ("Complete", "Finished", "Running")] == ["True", "True", "False"]
    assert [event["reason"] for event in until(lambda: job.events()[2:] and job.events())] == [
        "Starting",
        "Running",
        "Succeeded",
    ]


def test_deleted_job_leaves_only_its_retained_claim(operator: Operator, team: Team) -> None:
    kept, dropped = team.create("kept"), team.create("dropped", storage={"retain": False})
    for job in (kept, dropped):
        job.pod()
    until(lambda: "trainyard-ca" in team.names("configmaps"))
    kept.delete()
    dropped.delete()
    # The garbage collector discovers a new kind within half a minute.
    until(lambda: not (team.names("pods") or team.names("jobs", "batch/v1")))
    until(lambda: team.names("configmaps") == ["kube-root-ca.crt"])
    # The claim of a pod that was never scheduled has only a finalizer, which is removed with the pod.
    until(lambda: team.names("persistentvolumeclaims") == [kept.child_name])


def test_suspend_waits_for_the_pod_and_resume_reuses_the_job(operator: Operator, team: Team) -> None:
    job = team.create("pause")
    pod = job.run()
    child = job.child()["metadata"]["uid"]
    job.patch(suspend=True)
    job.wait("Suspending")
    pod.wait_for_deletion()
    until(lambda: "Suspended" in true_conditions(job.child()))  # set by the Job controller while the pod still runs
    wait_for_processing(team)
    assert job.status()["phase"] == "Suspending"
    message = termination("Interrupted", step=42, message="Saved at step 42.", exit_code=75, reason="Interrupted")
    pod.end(75, message)
    status = job.wait("Suspended")
    assert (status["attempts"][0]["exitCode"], status["progress"]["step"]) == (75, 42)
    assert "eta" not in status["summary"]
    assert job.condition("Suspended")["status"] == "True"
    until(lambda: job.pods() == [])
    job.patch(suspend=False)
    second = job.run()
    assert job.child()["metadata"]["uid"] == child
    assert [entry["number"] for entry in job.status()["attempts"]] == [1, 2]
    job.finish(second)
    job.wait("Succeeded")


def true_conditions(child: dict[str, Any]) -> set[str]:
    conditions = child["status"].get("conditions", [])
    return {entry["type"] for entry in conditions if entry["status"] == "True"}


def test_job_created_suspended_has_no_children_until_resumed(operator: Operator, team: Team) -> None:
    job = team.create("later", suspend=True)
    assert job.wait("Suspended")["conditions"]
    assert team.names("jobs", "batch/v1") == []
    job.patch(suspend=False)
    job.run()


def test_gracefully_stopped_job_saves_and_cannot_be_restarted(operator: Operator, team: Team) -> None:
    job = team.create("stop")
    pod = job.run()
    job.patch(stop="Graceful")
    job.wait("Stopping")
    pod.wait_for_deletion()
    message = termination("Interrupted", step=7, message="Saved at step 7.", exit_code=75, reason="Interrupted")
    pod.end(75, message)
    status = job.wait("Stopped")
    assert status["checkpoints"][0]["step"] == 7
    until(lambda: team.names("jobs", "batch/v1") == [])
    job.patch(suspend=True)
    job.patch(suspend=False)
    wait_for_processing(team)
    assert (job.status()["phase"], team.client.exists(job.child_path)) == ("Stopped", False)


def test_forced_stop_does_not_wait_for_the_grace_period(operator: Operator, team: Team) -> None:
    job = team.create("force", checkpoints={"gracePeriodSeconds": 600})
    pod = job.run()
    job.patch(stop="Force")
    deleted = until(
        lambda: (found := pod.read()) and found["metadata"].get("deletionGracePeriodSeconds") == 1 and found
    )
    assert deleted["metadata"]["deletionTimestamp"]
    pod.end(137)
    assert job.wait("Stopped")["phase"] == "Stopped"
    assert team.names("jobs", "batch/v1") == []


def test_bad_data_fails_at_once_with_the_trainers_message(operator: Operator, team: Team) -> None:
    job = team.create("bad")
    message = termination("Failed", step=0, message="Line 7 is not JSON.", exit_code=65, reason="BadData")
    job.run().end(65, message)
    status = job.wait("Failed")
    assert (job.condition("Failed")["reason"], status["message"]) == ("BadData", "Line 7 is not JSON.")
    assert job.condition("Stalled")["status"] == "True"
    assert len(job.pods()) == 1


def test_interruption_is_free_and_the_next_pod_is_the_next_attempt(operator: Operator, team: Team) -> None:
    job = team.create("evicted", retry={"limit": 0})
    message = termination("Interrupted", step=3, message="Saved at step 3.", exit_code=75, reason="Interrupted")
    job.run().end(75, message)
    job.wait("Starting")
    pods = until(lambda: found if len(found := job.pods()) == 2 else None)
    until(lambda: {entry["pod"] for entry in job.status()["attempts"]} == {pod["metadata"]["name"] for pod in pods})
    assert job.status()["attemptCounts"]["failed"] == 0


def test_image_pull_failure_fails_after_the_start_deadline(operator: Operator, team: Team) -> None:
    job = team.create("pull", startDeadlineSeconds=30)
    pod = job.pod()
    pod.bind()
    pod.waiting("ErrImagePull", "not found")
    until(lambda: "cannot be pulled" in job.status().get("message", ""))
    status = job.wait("Failed")
    assert job.condition("Failed")["reason"] == "ImagePullBackOff"
    assert "startDeadlineSeconds" in status["message"]
    until(lambda: team.names("jobs", "batch/v1") == [])


def test_check_job_reads_the_result_of_a_pod_without_message(operator: Operator, team: Team) -> None:
    job = team.create("without-message")
    job.run().end(0)
    check = job.pod("check")
    check.start()
    check.end(0, termination("Finished", step=100, message="Training finished."))
    job.wait("Succeeded")


def test_job_of_another_owner_is_not_adopted(operator: Operator, team: Team) -> None:
    job = team.create("taken", suspend=True)
    job.wait("Suspended")
    made = team.client.apply(job.child_path, foreign_job(job))
    job.patch(suspend=False)
    assert "belongs to something else" in job.wait("Pending")["message"]
    assert job.child()["metadata"]["uid"] == made["metadata"]["uid"]


def test_user_errors_are_logged_with_the_job_and_without_traceback(operator: Operator, team: Team) -> None:
    before = len(operator.log())
    lost = team.create("lost", storage={"claimName": "nowhere"})
    until(lambda: 'persistentvolumeclaim "nowhere" not found' in lost.status().get("message", ""))
    wrong = team.create("wrong", resources={**SPEC["resources"], "nodeSelector": {"no label": "x"}})
    assert "nodeSelector" in wrong.wait("Failed")["message"]
    bad = team.create("bad")
    message = termination("Failed", step=0, message="Line 7 is not JSON.", exit_code=65, reason="BadData")
    bad.run().end(65, message)
    bad.wait("Failed")
    taken = team.create("taken", suspend=True)
    taken.wait("Suspended")
    team.client.apply(taken.child_path, foreign_job(taken))
    taken.patch(suspend=False)
    assert "belongs to something else" in taken.wait("Pending")["message"]
    lines = [json.loads(line) for line in operator.log()[before:].splitlines()]
    assert {"time", "level", "logger", "message"} <= set.intersection(*map(set, lines))
    assert [line for line in lines if "exception" in line or "Traceback" in line["message"]] == []
    jobs = (lost, wrong, bad, taken)
    ours = [line for line in lines if team.namespace in json.dumps(line)]
    assert {line["job"] for line in ours if line["namespace"] == team.namespace} == {job.name for job in jobs}
    logged = {line["job"]: line["message"] for line in ours}
    assert "BadData: Line 7 is not JSON." in logged["bad"]
    assert "nodeSelector" in logged["wrong"]


def foreign_job(job: TrainingJob) -> dict[str, Any]:
    """Return a Job of another owner with the name of a TrainingJob's child."""
    spec = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "none"}]}
    metadata = {"name": job.child_name}
    template = {"suspend": True, "template": {"spec": spec}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template}


def test_restarted_operator_continues_from_the_observed_state(operator: Operator, team: Team) -> None:
    job = team.create("crash")
    pod = job.run()
    operator.kill()
    job.finish(pod)
    until(lambda: job.child()["status"].get("succeeded") == 1)
    assert job.status()["phase"] == "Running"
    operator.restart()
    job.wait("Succeeded")
    assert len(job.pods()) == 1


def test_unchanged_job_causes_no_requests(
    operator: Operator, team: Team, elsewhere: Team, control_plane: Kubernetes
) -> None:
    job = team.create("idle")
    job.run_and_wait_for_event()
    wait_for_processing(elsewhere)
    before = len(control_plane.audit())
    job.client.patch(job.path, {"metadata": {"annotations": {"example.com/touched": "yes"}}})
    team.client.patch(job.child_path, {"metadata": {"annotations": {"example.com/touched": "yes"}}})
    wait_for_processing(elsewhere)
    made = [
        (entry["verb"], entry["objectRef"]["resource"])
        for entry in requests_by(control_plane, USER, before)
        if entry["objectRef"].get("namespace") == team.namespace
    ]
    assert made == []


def test_operator_requests_are_all_authorized(control_plane: Kubernetes, operator: Operator) -> None:
    """Checks the requests of all tests before: the chart's roles are sufficient."""
    made = requests_by(control_plane, USER)
    refused = [entry for entry in made if entry["annotations"].get("authorization.k8s.io/decision") != "allow"]
    assert refused == []


def test_probes_and_metrics_of_a_leader(operator: Operator, team: Team) -> None:
    team.create("measured").run()
    assert operator.get("/healthz") == (200, "ok")
    assert operator.get("/readyz") == (200, "ok")
    metrics = operator.get("/metrics")[1]
    assert 'trainyard_jobs{phase="Running"}' in metrics
    assert 'trainyard_last_event_age_seconds{kind="pods"}' in metrics


def test_second_operator_waits_and_takes_over(operator: Operator, team: Team, control_plane: Kubernetes) -> None:
    second = Operator(control_plane, operator.folder, "two")
    try:
        first = len(control_plane.audit())
        until(lambda: len(lease_reads(control_plane, first)) >= 2)
        assert "trainyard_leader 0.0" in second.get("/metrics")[1]
        assert operator.stop() == 0
        assert holder(control_plane) in ("", "two"), "the stopped operator must release the Lease"
        second.wait_for_leadership()
        team.create("after").run()
        assert second.stop() == 0
    finally:
        second.kill()


def holder(control_plane: Kubernetes) -> str:
    """Return the identity of the leader in the Lease."""
    lease = control_plane.client.get(f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/trainyard-operator")
    return str(lease["spec"].get("holderIdentity") or "")


def lease_reads(control_plane: Kubernetes, after: int) -> list[dict[str, Any]]:
    """Return the reads of the Lease: the leader renews it without reading, a waiting operator reads it every 2 s."""
    made = requests_by(control_plane, USER, after)
    return [entry for entry in made if (entry["verb"], entry.get("objectRef", {}).get("resource")) == ("get", "leases")]


def test_expired_lease_is_taken_over(operator: Operator, control_plane: Kubernetes) -> None:
    second = Operator(control_plane, operator.folder, "three")
    try:
        until(lambda: second.get("/readyz")[0] == 200)
        operator.kill()
        second.wait_for_leadership()
        assert second.stop() == 0
    finally:
        second.kill()


def test_operator_without_the_crd_exits_with_a_message(too_early: Operator) -> None:
    assert too_early.process.returncode == os.EX_CONFIG
    assert "does not know TrainingJobs (trainyard.dev/v1alpha1). Install the CRD first" in too_early.log()
    assert "Traceback" not in too_early.log()


def test_missing_setting_is_named(control_plane: Kubernetes, operator: Operator) -> None:
    lost = Operator(control_plane, operator.folder, "lost", TRAINYARD_TRAINER_IMAGE="")
    assert lost.process.wait(TIMEOUT) == os.EX_CONFIG
    assert "TRAINYARD_TRAINER_IMAGE is not set" in lost.log()
