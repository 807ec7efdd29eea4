"""Exports appended to a finished TrainingJob, with a real Job controller; the tests simulate the kubelet."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api.gateway_support import Kubernetes, until
from tests.api.operator_support import USER, Operator, Pod, Team, TrainingJob, requests_by, termination

pytestmark = pytest.mark.api
ADAPTER, GGUF, MERGED = {"format": "adapter"}, {"format": "gguf", "type": "q8_0"}, {"format": "merged"}
RUN_FIELDS = ("phase", "message", "conditions", "progress", "metrics", "attempts", "completionTime", "checkpoints")


def export_message(format_: str, size: int = 33) -> str:
    """Return the termination message of a pod that wrote an export."""
    document = json.loads(termination("Finished", step=100, message=f"Made {format_}."))
    export = {"format": format_, "uri": f"pvc://c/exports/{format_}", "bytes": size, "digest": "sha256:bb"}
    return json.dumps({**document, "reason": "Exported", "exports": [export]})


def finished(team: Team, name: str, **spec: Any) -> TrainingJob:
    """Return a finished job with its adapter."""
    job = team.create(name, exports=[ADAPTER], **spec)
    job.run().end(0, export_message("adapter", 10))
    assert job.wait("Succeeded")["exports"][0]["bytes"] == 10
    return job


def run_fields(job: TrainingJob) -> dict[str, Any]:
    status = job.status()
    return {key: status.get(key) for key in RUN_FIELDS}


def entry(job: TrainingJob, format_: str) -> dict[str, Any]:
    found = [one for one in job.status().get("exports", []) if one["format"] == format_]
    return dict(found[0]) if found else {}


def wait_state(job: TrainingJob, format_: str, state: str) -> dict[str, Any]:
    found: dict[str, Any] = until(lambda: (seen := entry(job, format_)).get("state") == state and seen)
    return found


def run_export(job: TrainingJob, format_: str) -> None:
    """Simulate the kubelet for the pod of an export."""
    pod = job.pod("export")
    pod.start()
    wait_state(job, format_, "Running")
    pod.end(0, export_message(format_))


def export_job(job: TrainingJob, suffix: str) -> str:
    return job.child_path.replace(job.child_name, f"{job.child_name}-{suffix}")


def test_appended_exports_run_one_at_a_time_and_leave_the_run_unchanged(operator: Operator, team: Team) -> None:
    job = finished(team, "more")
    before = run_fields(job)
    job.patch(exports=[ADAPTER, GGUF, MERGED])
    assert until(lambda: entry(job, "gguf").get("jobName")) == f"{job.child_name}-gguf"
    assert entry(job, "gguf")["state"] == "Pending"
    assert wait_state(job, "merged", "Pending")["reason"] == "Waiting"
    assert job.read()["metadata"]["generation"] == job.status()["observedGeneration"]
    assert not job.client.exists(export_job(job, "merge"))
    made = job.client.get(export_job(job, "gguf"))
    assert made["metadata"]["ownerReferences"][0]["uid"] == job.uid
    run_export(job, "gguf")
    assert wait_state(job, "gguf", "Succeeded")["digest"] == "sha256:bb"
    run_export(job, "merged")
    wait_state(job, "merged", "Succeeded")
    assert run_fields(job) == before
    assert [one["format"] for one in job.status()["exports"]] == ["adapter", "gguf", "merged"]
    reasons = until(lambda: (seen := [event["reason"] for event in job.events()]).count("Exported") == 2 and seen)
    assert reasons.count("Exporting") == 2


def test_export_appended_during_the_run_is_made_after_it(operator: Operator, team: Team) -> None:
    job = team.create("meanwhile", exports=[ADAPTER])
    pod = job.run()
    job.patch(exports=[ADAPTER, GGUF])
    pod.end(0, export_message("adapter", 10))
    job.wait("Succeeded")
    run_export(job, "gguf")
    wait_state(job, "gguf", "Succeeded")


def test_failed_export_has_a_reason_and_is_retried_after_its_job_is_deleted(operator: Operator, team: Team) -> None:
    job = finished(team, "denied")
    before = run_fields(job)
    job.patch(exports=[ADAPTER, GGUF])
    refused = {"outcome": "Failed", "exitCode": 77, "reason": "NotPermitted", "message": "The bucket wants a key."}
    pod = job.pod("export")
    pod.start()
    pod.end(77, json.dumps(refused))
    failed = wait_state(job, "gguf", "Failed")
    remedy = f"To try it again, delete its Job: kubectl delete job {job.child_name}-gguf"
    assert (failed["reason"], failed["message"]) == ("NotPermitted", f"The bucket wants a key. {remedy}")
    assert run_fields(job) == before
    until(lambda: "ExportFailed" in [event["reason"] for event in job.events()])
    job.client.delete(export_job(job, "gguf"), {"propagationPolicy": "Background"})
    until(lambda: pod.read() is None)
    run_export(job, "gguf")
    wait_state(job, "gguf", "Succeeded")
    assert run_fields(job) == before


def test_export_that_misses_the_start_deadline_fails_and_the_next_one_runs(operator: Operator, team: Team) -> None:
    job = finished(team, "late", startDeadlineSeconds=30)
    before = run_fields(job)
    job.patch(exports=[ADAPTER, GGUF, MERGED])
    stuck = job.pod("export")
    stuck.bind()
    stuck.waiting("ErrImagePull", "not found")
    failed = wait_state(job, "gguf", "Failed")
    assert failed["reason"] == "ImagePullBackOff"
    assert failed["message"].startswith("The container did not run within 30 s (spec.startDeadlineSeconds). The image ")
    assert failed["message"].endswith(f"delete its Job: kubectl delete job {job.child_name}-gguf")
    stuck.wait_for_deletion()
    stuck.remove()
    run_export(job, "merged")
    wait_state(job, "merged", "Succeeded")
    assert (entry(job, "gguf"), run_fields(job)) == (failed, before)
    job.client.delete(export_job(job, "gguf"), {"propagationPolicy": "Background"})
    run_export(job, "gguf")
    wait_state(job, "gguf", "Succeeded")


def test_killed_operator_finishes_the_export(operator: Operator, team: Team) -> None:
    job = finished(team, "killed")
    before = run_fields(job)
    operator.kill()
    job.patch(exports=[ADAPTER, GGUF])
    operator.restart()
    pod = job.pod("export")  # the Job exists, its status may not be written yet
    operator.kill()
    pod.start()
    pod.end(75)  # evicted while no operator runs
    second = next_pod(job, pod)
    second.start()
    operator.restart()
    wait_state(job, "gguf", "Running")
    operator.kill()
    second.end(0, export_message("gguf"))
    until(lambda: "Complete" in conditions(job, "gguf"))
    operator.restart()
    made = wait_state(job, "gguf", "Succeeded")
    assert (made["bytes"], made["digest"]) == (33, "sha256:bb")
    assert run_fields(job) == before
    assert len(job.pods("export")) == 2


def next_pod(job: TrainingJob, pod: Pod) -> Pod:
    """Return the pod that the Job controller creates after this one."""
    return until(lambda: found if (found := job.pod("export")).name != pod.name else None)


def conditions(job: TrainingJob, suffix: str) -> list[str]:
    status = job.client.get(export_job(job, suffix)).get("status", {})
    return [one["type"] for one in status.get("conditions", []) if one["status"] == "True"]


def test_export_whose_result_was_missed_runs_again(operator: Operator, team: Team) -> None:
    job = finished(team, "unseen")
    job.patch(exports=[ADAPTER, GGUF])
    pod = job.pod("export")
    uid = job.client.get(export_job(job, "gguf"))["metadata"]["uid"]
    pod.start()
    wait_state(job, "gguf", "Running")
    operator.kill()
    pod.end(0, export_message("gguf"))
    until(lambda: "Complete" in conditions(job, "gguf"))
    pod.remove()
    until(lambda: pod.read() is None)
    operator.restart()
    run_export(job, "gguf")
    wait_state(job, "gguf", "Succeeded")
    assert job.client.get(export_job(job, "gguf"))["metadata"]["uid"] != uid


def test_finished_exports_cost_no_request_and_are_deleted_with_their_job(
    operator: Operator, team: Team, control_plane: Kubernetes
) -> None:
    job = finished(team, "quiet", storage={"retain": False})
    job.patch(exports=[ADAPTER, GGUF])
    run_export(job, "gguf")
    wait_state(job, "gguf", "Succeeded")
    until(lambda: "Exported" in [event["reason"] for event in job.events()])
    before = len(control_plane.audit())
    job.client.patch(job.path, {"metadata": {"annotations": {"example.com/touched": "yes"}}})
    job.client.patch(export_job(job, "gguf"), {"metadata": {"annotations": {"example.com/touched": "yes"}}})
    finished(team, "witness")  # by then the operator has handled the earlier events
    about = [made["objectRef"].get("name", "") for made in requests_by(control_plane, USER, before)]
    assert [name for name in about if name.startswith("quiet")] == []
    job.delete()
    until(lambda: not [name for name in team.names("jobs", "batch/v1") if name.startswith("quiet")])
    until(lambda: not [name for name in team.names("configmaps") if name.startswith("quiet")])
