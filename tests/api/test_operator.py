"""The operator against a real API server, Job controller and garbage collector; the tests play the kubelet."""

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
    namespace_of_a_team,
    requests_by,
    termination,
)

pytestmark = pytest.mark.api


def pass_a_life(team: Team) -> None:
    """Let another job live from beginning to end: what the operator was told before, it has worked on by then."""
    job = team.create(f"witness-{uuid.uuid4().hex[:8]}")
    job.finish(job.run())
    job.wait("Succeeded")


@pytest.fixture
def elsewhere(control_plane: Kubernetes) -> Iterator[Team]:
    """Another namespace."""
    with namespace_of_a_team(control_plane, "elsewhere") as made:
        yield made


def test_a_job_from_apply_to_succeeded(operator: Operator, team: Team) -> None:
    job = team.create("life")
    pod = job.pod()  # the API server and the Job controller took the template under Pod Security `restricted`
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


def test_a_deleted_job_leaves_nothing_but_its_retained_claim(operator: Operator, team: Team) -> None:
    kept, dropped = team.create("kept"), team.create("dropped", storage={"retain": False})
    for job in (kept, dropped):
        job.pod()
    until(lambda: "trainyard-ca" in team.names("configmaps"))
    kept.delete()
    dropped.delete()
    # The garbage collector learns of a new kind within half a minute.
    until(lambda: not (team.names("pods") or team.names("jobs", "batch/v1")))
    until(lambda: team.names("configmaps") == ["kube-root-ca.crt"])
    # Nothing protects a claim of a pod that was never scheduled but its finalizer, which goes with the pod.
    until(lambda: team.names("persistentvolumeclaims") == [kept.child_name])


def test_suspension_waits_for_the_pod_and_resumption_reuses_the_job(operator: Operator, team: Team) -> None:
    job = team.create("pause")
    pod = job.run()
    child = job.child()["metadata"]["uid"]
    job.patch(suspend=True)
    job.wait("Suspending")
    pod.wait_for_deletion()
    until(lambda: "Suspended" in true_conditions(job.child()))  # says the Job controller while the pod still runs
    pass_a_life(team)
    assert job.status()["phase"] == "Suspending"
    words = termination("Interrupted", step=42, message="Saved at step 42.", exit_code=75, reason="Interrupted")
    pod.end(75, words)
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


def test_a_job_suspended_from_the_start_has_no_children_until_it_is_resumed(operator: Operator, team: Team) -> None:
    job = team.create("later", suspend=True)
    assert job.wait("Suspended")["conditions"]
    assert team.names("jobs", "batch/v1") == []
    job.patch(suspend=False)
    job.run()


def test_a_graceful_stop_saves_and_nothing_can_start_it_again(operator: Operator, team: Team) -> None:
    job = team.create("stop")
    pod = job.run()
    job.patch(stop="Graceful")
    job.wait("Stopping")
    pod.wait_for_deletion()
    words = termination("Interrupted", step=7, message="Saved at step 7.", exit_code=75, reason="Interrupted")
    pod.end(75, words)
    status = job.wait("Stopped")
    assert status["checkpoints"][0]["step"] == 7
    until(lambda: team.names("jobs", "batch/v1") == [])
    job.patch(suspend=True)
    job.patch(suspend=False)
    pass_a_life(team)
    assert (job.status()["phase"], team.client.exists(job.child_path)) == ("Stopped", False)


def test_a_forced_stop_does_not_wait_for_the_grace_period(operator: Operator, team: Team) -> None:
    job = team.create("force", checkpoints={"gracePeriodSeconds": 600})
    pod = job.run()
    job.patch(stop="Force")
    hurried = until(
        lambda: (found := pod.read()) and found["metadata"].get("deletionGracePeriodSeconds") == 1 and found
    )
    assert hurried["metadata"]["deletionTimestamp"]
    pod.end(137)
    assert job.wait("Stopped")["phase"] == "Stopped"
    assert team.names("jobs", "batch/v1") == []


def test_bad_data_fails_at_once_with_the_trainers_words(operator: Operator, team: Team) -> None:
    job = team.create("bad")
    words = termination("Failed", step=0, message="Line 7 is not JSON.", exit_code=65, reason="BadData")
    job.run().end(65, words)
    status = job.wait("Failed")
    assert (job.condition("Failed")["reason"], status["message"]) == ("BadData", "Line 7 is not JSON.")
    assert job.condition("Stalled")["status"] == "True"
    assert len(job.pods()) == 1


def test_an_interruption_is_free_and_the_next_pod_is_the_next_attempt(operator: Operator, team: Team) -> None:
    job = team.create("evicted", retry={"limit": 0})
    words = termination("Interrupted", step=3, message="Saved at step 3.", exit_code=75, reason="Interrupted")
    job.run().end(75, words)
    job.wait("Starting")
    pods = until(lambda: found if len(found := job.pods()) == 2 else None)
    until(lambda: {entry["pod"] for entry in job.status()["attempts"]} == {pod["metadata"]["name"] for pod in pods})
    assert job.status()["attemptCounts"]["failed"] == 0


def test_an_image_that_cannot_be_pulled_fails_after_the_start_deadline(operator: Operator, team: Team) -> None:
    job = team.create("pull", startDeadlineSeconds=30)
    pod = job.pod()
    pod.bind()
    pod.waiting("ErrImagePull", "not found")
    until(lambda: "cannot be pulled" in job.status().get("message", ""))
    status = job.wait("Failed")
    assert job.condition("Failed")["reason"] == "ImagePullBackOff"
    assert "startDeadlineSeconds" in status["message"]
    until(lambda: team.names("jobs", "batch/v1") == [])


def test_a_pod_that_left_no_result_is_checked_on_the_volume(operator: Operator, team: Team) -> None:
    job = team.create("mute")
    job.run().end(0)
    check = job.pod("check")
    check.start()
    check.end(0, termination("Finished", step=100, message="Training finished."))
    job.wait("Succeeded")


def test_another_owners_job_is_neither_adopted_nor_touched(operator: Operator, team: Team) -> None:
    job = team.create("taken", suspend=True)
    job.wait("Suspended")
    made = team.client.apply(job.child_path, foreign_job(job))
    job.patch(suspend=False)
    assert "belongs to something else" in job.wait("Pending")["message"]
    assert job.child()["metadata"]["uid"] == made["metadata"]["uid"]


def test_mistakes_of_users_leave_lines_that_say_whose_and_no_traceback(operator: Operator, team: Team) -> None:
    before = len(operator.log())
    lost = team.create("lost", storage={"claimName": "nowhere"})
    until(lambda: 'persistentvolumeclaim "nowhere" not found' in lost.status().get("message", ""))
    wrong = team.create("wrong", resources={**SPEC["resources"], "nodeSelector": {"no label": "x"}})
    assert "nodeSelector" in wrong.wait("Failed")["message"]
    bad = team.create("bad")
    words = termination("Failed", step=0, message="Line 7 is not JSON.", exit_code=65, reason="BadData")
    bad.run().end(65, words)
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
    told = {line["job"]: line["message"] for line in ours}
    assert "BadData: Line 7 is not JSON." in told["bad"]
    assert "nodeSelector" in told["wrong"]


def foreign_job(job: TrainingJob) -> dict[str, Any]:
    """A Job of somebody else with the name of a TrainingJob's child."""
    spec = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "none"}]}
    metadata = {"name": job.child_name}
    template = {"suspend": True, "template": {"spec": spec}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template}


def test_an_operator_that_was_killed_goes_on_from_what_it_finds(operator: Operator, team: Team) -> None:
    job = team.create("crash")
    pod = job.run()
    operator.kill()
    job.finish(pod)
    until(lambda: job.child()["status"].get("succeeded") == 1)
    assert job.status()["phase"] == "Running"
    operator.restart()
    job.wait("Succeeded")
    assert len(job.pods()) == 1


def test_an_unchanged_job_costs_no_request(
    operator: Operator, team: Team, elsewhere: Team, control_plane: Kubernetes
) -> None:
    job = team.create("idle")
    job.run_for_good()
    pass_a_life(elsewhere)
    before = len(control_plane.audit())
    job.client.patch(job.path, {"metadata": {"annotations": {"example.com/touched": "yes"}}})
    team.client.patch(job.child_path, {"metadata": {"annotations": {"example.com/touched": "yes"}}})
    pass_a_life(elsewhere)
    made = [
        (entry["verb"], entry["objectRef"]["resource"])
        for entry in requests_by(control_plane, USER, before)
        if entry["objectRef"].get("namespace") == team.namespace
    ]
    assert made == []


def test_the_operator_is_never_refused_what_it_asks_for(control_plane: Kubernetes, operator: Operator) -> None:
    """After all that came before: the chart's roles are enough."""
    made = requests_by(control_plane, USER)
    refused = [entry for entry in made if entry["annotations"].get("authorization.k8s.io/decision") != "allow"]
    assert refused == []


def test_the_probes_and_metrics_of_a_leader(operator: Operator, team: Team) -> None:
    team.create("measured").run()
    assert operator.get("/healthz") == (200, "ok")
    assert operator.get("/readyz") == (200, "ok")
    metrics = operator.get("/metrics")[1]
    assert 'trainyard_jobs{phase="Running"}' in metrics
    assert 'trainyard_last_event_age_seconds{kind="pods"}' in metrics


def test_a_second_operator_waits_and_takes_over(operator: Operator, team: Team, control_plane: Kubernetes) -> None:
    second = Operator(control_plane, operator.folder, "two")
    try:
        first = len(control_plane.audit())
        until(lambda: len(looks_at_the_lease(control_plane, first)) >= 2)
        assert "trainyard_leader 0.0" in second.get("/metrics")[1]
        assert operator.stop() == 0
        assert holder(control_plane) in ("", "two"), "it gives the Lease back, so that nobody waits until that runs out"
        second.wait_for_leadership()
        team.create("after").run()
        assert second.stop() == 0
    finally:
        second.kill()


def holder(control_plane: Kubernetes) -> str:
    """Who leads, as the Lease says."""
    lease = control_plane.client.get(f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/trainyard-operator")
    return str(lease["spec"].get("holderIdentity") or "")


def looks_at_the_lease(control_plane: Kubernetes, after: int) -> list[dict[str, Any]]:
    """Reads of the Lease: who leads renews it without reading, who waits reads it every two seconds."""
    made = requests_by(control_plane, USER, after)
    return [entry for entry in made if (entry["verb"], entry.get("objectRef", {}).get("resource")) == ("get", "leases")]


def test_leadership_that_was_not_released_is_taken_over_when_it_ran_out(
    operator: Operator, control_plane: Kubernetes
) -> None:
    second = Operator(control_plane, operator.folder, "three")
    try:
        until(lambda: second.get("/readyz")[0] == 200)
        operator.kill()
        second.wait_for_leadership()
        assert second.stop() == 0
    finally:
        second.kill()


def test_without_the_crd_it_says_so_and_ends(too_early: Operator) -> None:
    assert too_early.process.returncode == os.EX_CONFIG
    assert "does not know TrainingJobs (trainyard.dev/v1alpha1). Install the CRD first" in too_early.log()
    assert "Traceback" not in too_early.log()


def test_a_missing_setting_is_named(control_plane: Kubernetes, operator: Operator) -> None:
    lost = Operator(control_plane, operator.folder, "lost", TRAINYARD_TRAINER_IMAGE="")
    assert lost.process.wait(TIMEOUT) == os.EX_CONFIG
    assert "TRAINYARD_TRAINER_IMAGE is not set" in lost.log()
