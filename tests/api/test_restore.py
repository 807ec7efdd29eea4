"""TrainingJobs that are restored from a backup: a real operator and a real control plane."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api.gateway_support import until
from tests.api.operator_support import Operator, Team, TrainingJob, termination
from trainyard_crds.constants import RUN_ANNOTATION
from trainyard_kube.errors import NotFoundError

pytestmark = pytest.mark.api


def backup_of(job: TrainingJob) -> dict[str, Any]:
    """The object as `kubectl get -o yaml` shows it, once the operator has named its run."""

    def annotated() -> dict[str, Any] | None:
        found = job.read()
        return found if RUN_ANNOTATION in (found["metadata"].get("annotations") or {}) else None

    backup: dict[str, Any] = until(annotated)
    return backup


def restored(job: TrainingJob, backup: dict[str, Any]) -> TrainingJob:
    """Delete the job and create it again from its backup, with a new UID and without a status."""
    job.delete()

    def is_gone() -> bool:
        try:
            job.read()
        except NotFoundError:
            return True
        return False

    until(is_gone)
    metadata = {key: backup["metadata"][key] for key in ("name", "namespace", "annotations")}
    body = {**backup, "metadata": metadata}
    created = job.client.apply(job.path, body)
    assert created["metadata"]["uid"] != job.uid
    assert "status" not in created
    return TrainingJob(job.team, job.name, created["metadata"]["uid"])


def test_a_restored_finished_job_stays_finished(operator: Operator, team: Team) -> None:
    job = team.create("finished")
    job.finish(job.run())
    job.wait("Succeeded")
    again = restored(job, backup_of(job))
    check = again.pod("check")
    assert again.wait("Pending")["message"].startswith("The TrainingJob was restored; its run directory pvc://")
    check.start()
    check.end(0, termination("Finished", step=100, message="Training finished after 100 steps."))
    status = again.wait("Succeeded")
    assert status["runUri"] == f"pvc://{job.child_name}/trainyard/{job.child_name}"
    assert (status["summary"]["step"], status["progress"]["percent"]) == ("100/100", 100.0)
    assert again.condition("Complete")["reason"] == "Restored"
    with pytest.raises(NotFoundError):
        again.child()
    assert team.names("persistentvolumeclaims") == [job.child_name]


def test_a_restored_unfinished_job_resumes_in_its_directory(operator: Operator, team: Team) -> None:
    job = team.create("unfinished")
    pod = job.run()
    again = restored(job, backup_of(job))
    pod.wait_for_deletion()
    pod.end(75)
    check = again.pod("check")
    check.start()
    check.end(66, termination("Failed", step=0, message="No result.", exit_code=66, reason="NotFound"))
    again.run()
    (config,) = [name for name in team.names("configmaps") if name.startswith(again.child_name)]
    path = f"/api/v1/namespaces/{team.namespace}/configmaps/{config}"
    document = json.loads(team.client.get(path)["data"]["run.json"])
    assert document["runDirectory"].endswith(f"/trainyard/{job.child_name}")
    assert again.status()["runUri"] == f"pvc://{job.child_name}/trainyard/{job.child_name}"
    assert team.names("persistentvolumeclaims") == [job.child_name]


def test_a_job_created_again_from_its_manifest_is_a_new_run(operator: Operator, team: Team) -> None:
    job = team.create("again")
    pod = job.run()
    backup = backup_of(job)
    del backup["metadata"]["annotations"][RUN_ANNOTATION]
    again = restored(job, backup)
    pod.wait_for_deletion()
    pod.end(75)
    again.run()
    assert again.status()["runUri"] == f"pvc://{again.child_name}/trainyard/{again.child_name}"
