"""Exports that are appended to a finished TrainingJob, with a real Job controller; the tests play the kubelet."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api.gateway_support import Kubernetes, until
from tests.api.operator_support import USER, Operator, Pod, Team, TrainingJob, requests_by, termination

pytestmark = pytest.mark.api
ADAPTER, GGUF, MERGED = {"format": "adapter"}, {"format": "gguf", "type": "q8_0"}, {"format": "merged"}
OF_THE_RUN = ("phase", "message", "conditions", "progress", "metrics", "attempts", "completionTime", "checkpoints")


def words(format_: str, size: int = 33) -> str:
    """A pod's account of an export it made."""
    document = json.loads(termination("Finished", step=100, message=f"Made {format_}."))
    export = {"format": format_, "uri": f"pvc://c/exports/{format_}", "bytes": size, "digest": "sha256:bb"}
    return json.dumps({**document, "reason": "Exported", "exports": [export]})


def finished(team: Team, name: str, **spec: Any) -> TrainingJob:
    """A job that has left its adapter."""
    job = team.create(name, exports=[ADAPTER], **spec)
    job.run().end(0, words("adapter", 10))
    assert job.wait("Succeeded")["exports"][0]["bytes"] == 10
    return job


def of_the_run(job: TrainingJob) -> dict[str, Any]:
    status = job.status()
    return {key: status.get(key) for key in OF_THE_RUN}


def entry(job: TrainingJob, format_: str) -> dict[str, Any]:
    found = [one for one in job.status().get("exports", []) if one["format"] == format_]
    return dict(found[0]) if found else {}


def wait_state(job: TrainingJob, format_: str, state: str) -> dict[str, Any]:
    found: dict[str, Any] = until(lambda: (seen := entry(job, format_)).get("state") == state and seen)
    return found


def make(job: TrainingJob, format_: str) -> None:
    """Play the kubelet of the export's pod."""
    pod = job.pod("export")
    pod.start()
    wait_state(job, format_, "Running")
    pod.end(0, words(format_))


def export_job(job: TrainingJob, suffix: str) -> str:
    return job.child_path.replace(job.child_name, f"{job.child_name}-{suffix}")


def test_appended_exports_are_made_one_after_the_other_and_the_run_is_as_finished_as_before(
    operator: Operator, team: Team
) -> None:
    job = finished(team, "more")
    before = of_the_run(job)
    job.patch(exports=[ADAPTER, GGUF, MERGED])
    assert until(lambda: entry(job, "gguf").get("jobName")) == f"{job.child_name}-gguf"
    assert entry(job, "gguf")["state"] == "Pending"
    assert wait_state(job, "merged", "Pending")["reason"] == "Waiting"
    assert job.read()["metadata"]["generation"] == job.status()["observedGeneration"]
    assert not job.client.exists(export_job(job, "merge"))
    made = job.client.get(export_job(job, "gguf"))
    assert made["metadata"]["ownerReferences"][0]["uid"] == job.uid
    make(job, "gguf")
    assert wait_state(job, "gguf", "Succeeded")["digest"] == "sha256:bb"
    make(job, "merged")
    wait_state(job, "merged", "Succeeded")
    assert of_the_run(job) == before
    assert [one["format"] for one in job.status()["exports"]] == ["adapter", "gguf", "merged"]
    told = until(lambda: (seen := [event["reason"] for event in job.events()]).count("Exported") == 2 and seen)
    assert told.count("Exporting") == 2


def test_an_export_that_was_asked_for_while_the_job_ran_is_made_when_it_has_finished(
    operator: Operator, team: Team
) -> None:
    job = team.create("meanwhile", exports=[ADAPTER])
    pod = job.run()
    job.patch(exports=[ADAPTER, GGUF])
    pod.end(0, words("adapter", 10))
    job.wait("Succeeded")
    make(job, "gguf")
    wait_state(job, "gguf", "Succeeded")


def test_a_failed_export_says_why_and_its_job_can_be_deleted_to_try_again(operator: Operator, team: Team) -> None:
    job = finished(team, "denied")
    before = of_the_run(job)
    job.patch(exports=[ADAPTER, GGUF])
    refused = {"outcome": "Failed", "exitCode": 77, "reason": "NotPermitted", "message": "The bucket wants a key."}
    pod = job.pod("export")
    pod.start()
    pod.end(77, json.dumps(refused))
    failed = wait_state(job, "gguf", "Failed")
    remedy = f"To try it again, delete its Job: kubectl delete job {job.child_name}-gguf"
    assert (failed["reason"], failed["message"]) == ("NotPermitted", f"The bucket wants a key. {remedy}")
    assert of_the_run(job) == before
    until(lambda: "ExportFailed" in [event["reason"] for event in job.events()])
    job.client.delete(export_job(job, "gguf"), {"propagationPolicy": "Background"})
    until(lambda: pod.read() is None)
    make(job, "gguf")
    wait_state(job, "gguf", "Succeeded")
    assert of_the_run(job) == before


def test_an_export_that_does_not_start_in_time_fails_and_lets_the_next_one_go_on(
    operator: Operator, team: Team
) -> None:
    job = finished(team, "late", startDeadlineSeconds=30)
    before = of_the_run(job)
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
    make(job, "merged")
    wait_state(job, "merged", "Succeeded")
    assert (entry(job, "gguf"), of_the_run(job)) == (failed, before)
    job.client.delete(export_job(job, "gguf"), {"propagationPolicy": "Background"})
    make(job, "gguf")
    wait_state(job, "gguf", "Succeeded")


def test_an_operator_that_is_killed_in_between_comes_to_the_same_end(operator: Operator, team: Team) -> None:
    job = finished(team, "killed")
    before = of_the_run(job)
    operator.kill()
    job.patch(exports=[ADAPTER, GGUF])
    operator.restart()
    pod = job.pod("export")  # the Job is there, its status perhaps not told yet
    operator.kill()
    pod.start()
    pod.end(75)  # evicted while nobody looked
    second = another(job, pod)
    second.start()
    operator.restart()
    wait_state(job, "gguf", "Running")
    operator.kill()
    second.end(0, words("gguf"))
    until(lambda: "Complete" in conditions(job, "gguf"))
    operator.restart()
    made = wait_state(job, "gguf", "Succeeded")
    assert (made["bytes"], made["digest"]) == (33, "sha256:bb")
    assert of_the_run(job) == before
    assert len(job.pods("export")) == 2


def another(job: TrainingJob, pod: Pod) -> Pod:
    """The pod that the Job controller makes after this one."""
    return until(lambda: found if (found := job.pod("export")).name != pod.name else None)


def conditions(job: TrainingJob, suffix: str) -> list[str]:
    status = job.client.get(export_job(job, suffix)).get("status", {})
    return [one["type"] for one in status.get("conditions", []) if one["status"] == "True"]


def test_a_result_that_nobody_saw_is_looked_at_again(operator: Operator, team: Team) -> None:
    job = finished(team, "unseen")
    job.patch(exports=[ADAPTER, GGUF])
    pod = job.pod("export")
    uid = job.client.get(export_job(job, "gguf"))["metadata"]["uid"]
    pod.start()
    wait_state(job, "gguf", "Running")
    operator.kill()
    pod.end(0, words("gguf"))
    until(lambda: "Complete" in conditions(job, "gguf"))
    pod.remove()
    until(lambda: pod.read() is None)
    operator.restart()
    make(job, "gguf")
    wait_state(job, "gguf", "Succeeded")
    assert job.client.get(export_job(job, "gguf"))["metadata"]["uid"] != uid


def test_finished_exports_cost_no_request_and_go_with_their_job(
    operator: Operator, team: Team, control_plane: Kubernetes
) -> None:
    job = finished(team, "quiet", storage={"retain": False})
    job.patch(exports=[ADAPTER, GGUF])
    make(job, "gguf")
    wait_state(job, "gguf", "Succeeded")
    until(lambda: "Exported" in [event["reason"] for event in job.events()])
    before = len(control_plane.audit())
    job.client.patch(job.path, {"metadata": {"annotations": {"example.com/touched": "yes"}}})
    job.client.patch(export_job(job, "gguf"), {"metadata": {"annotations": {"example.com/touched": "yes"}}})
    finished(team, "witness")  # what the operator was told before, it has worked on by then
    about = [made["objectRef"].get("name", "") for made in requests_by(control_plane, USER, before)]
    assert [name for name in about if name.startswith("quiet")] == []
    job.delete()
    until(lambda: not [name for name in team.names("jobs", "batch/v1") if name.startswith("quiet")])
    until(lambda: not [name for name in team.names("configmaps") if name.startswith("quiet")])
