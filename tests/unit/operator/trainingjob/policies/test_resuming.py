"""spec.resumeFrom: the run of another TrainingJob is found before the trainer starts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.operator.trainingjob.builders import context
from trainyard_operator.admission.decision import Admission
from trainyard_operator.reconcile.plan import Need
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policies.starting import start_or_run

OLD = ("trainingjobs", "old")
URI = "pvc://old-12345678/trainyard/old-12345678"
BY_NAME = {"resumeFrom": {"trainingJob": "old"}}
BY_URI = {"resumeFrom": {"runUri": URI, "checkpoint": "step-300-e1", "mode": "weights"}}
STARTED = {"status": {"runUri": URI, "phase": "Failed"}}


def created(spec: dict[str, Any], answers: dict[tuple[str, str], Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run config and pod spec of a job that is admitted."""
    found = start_or_run(context(spec=spec, answers=answers))
    assert isinstance(found, Decision)
    by_kind = {body["kind"]: body for body in found.create}
    config = json.loads(by_kind["ConfigMap"]["data"]["run.json"])
    return config, by_kind["Job"]["spec"]["template"]["spec"]


def claims(pod: dict[str, Any]) -> list[str]:
    return [
        volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume
    ]


@pytest.mark.parametrize(
    ("spec", "answers", "checkpoint", "mode"),
    [(BY_NAME, {OLD: STARTED}, "last", "continue"), (BY_URI, {}, "step-300-e1", "weights")],
    ids=["by name", "by directory"],
)
def test_the_trainer_gets_the_other_run_read_only(
    spec: dict[str, Any], answers: Any, checkpoint: str, mode: str
) -> None:
    config, pod = created(spec, answers)
    assert config["resumeFrom"] == {
        "runDirectory": "/volumes/claims/old-12345678/trainyard/old-12345678",
        "runUri": URI,
        "checkpoint": checkpoint,
        "mode": mode,
    }
    assert "old-12345678" in claims(pod)
    mounts = pod["containers"][0]["volumeMounts"]
    (mount,) = (mount for mount in mounts if mount["mountPath"] == "/volumes/claims/old-12345678")
    assert mount["readOnly"] is True


def test_a_run_on_the_same_claim_is_one_volume() -> None:
    _, pod = created(BY_URI | {"storage": {"claimName": "old-12345678"}}, {})
    assert claims(pod).count("old-12345678") == 1


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (None, "there is no TrainingJob old in this namespace. If it was deleted and its claim still exists, set "),
        ({"status": {"phase": "Queued"}}, "the TrainingJob old has not started, so it has no checkpoint."),
        ({}, "the TrainingJob old has not started"),
    ],
    ids=["missing", "queued", "new"],
)
def test_a_job_without_a_run_is_refused(other: Any, sentence: str) -> None:
    found = start_or_run(context(spec=BY_NAME, answers={OLD: other}))
    assert isinstance(found, Decision)
    assert (found.phase, found.reason) == ("Failed", "InvalidSpec")
    assert found.message.startswith(f"spec.resumeFrom.trainingJob: {sentence}")


def test_the_other_job_is_looked_up_when_new_and_when_admitted() -> None:
    waits = Admission(admitted=False, reason="WaitingForGPUs", message="It waits.")
    assert start_or_run(context(spec=BY_NAME, admission=waits)) == Need(*OLD)
    assert start_or_run(context(spec=BY_NAME, status={"phase": "Queued"})) == Need(*OLD)
    queued = start_or_run(context(spec=BY_NAME, status={"phase": "Queued"}, admission=waits))
    assert isinstance(queued, Decision)
    assert queued.phase == "Queued"
