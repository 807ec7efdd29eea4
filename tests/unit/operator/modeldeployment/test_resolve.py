"""What a ModelDeployment serves, by its spec and the TrainingJobs that it names."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.modeldeployment.support import (
    DIGEST,
    NAME,
    OTHER_DIGEST,
    RUN,
    checkpoint,
    observed,
    training_job,
)
from trainyard_operator.modeldeployment.resolve import Fault, Resolved, named_jobs, resolve, run_claims

FROM = {"trainingJob": "tune"}
CHILD = {"metadata": {"name": "bot-01234567"}, "spec": {"replicas": 1}}


def served(spec: dict[str, Any], *jobs: dict[str, Any], **parts: Any) -> Resolved:
    found = resolve(observed(spec, jobs={job["metadata"]["name"]: job for job in jobs}, **parts))
    assert isinstance(found, Resolved), found
    return found


def fault(spec: dict[str, Any], *jobs: dict[str, Any], **parts: Any) -> Fault:
    found = resolve(observed(spec, jobs={job["metadata"]["name"]: job for job in jobs}, **parts))
    assert isinstance(found, Fault), found
    return found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hf://org/base", "hf://org/base"),
        ("s3://bucket/base", "s3://bucket/base"),
        ("pvc://models/base", "file:///volumes/claims/models/base"),
    ],
)
def test_source_is_served_under_the_name_of_the_deployment(source: str, expected: str) -> None:
    found = served({"model": {"source": source}})
    assert (found.model.source, found.model.display) == (expected, source)
    assert (found.base_name, found.served_name, found.adapters) == (NAME, NAME, ())


def test_served_name_replaces_the_name_of_the_deployment() -> None:
    assert served({"model": {"source": "hf://org/base", "servedName": "chat"}}).base_name == "chat"


def test_adapter_job_is_served_beside_its_base_model() -> None:
    found = served({"model": {"from": FROM}}, training_job())
    assert (found.model.source, found.model.revision, found.base_name) == ("hf://org/base", "c0ffee", "base")
    [adapter] = found.adapters
    assert adapter.desired is not None
    artifact = adapter.desired.artifact
    assert (adapter.name, adapter.rank, adapter.checkpoint) == (NAME, 8, "step-10-e1")
    assert (artifact.source, artifact.files) == (
        f"run://{RUN.removeprefix('pvc://')}/checkpoints/step-10-e1",
        "weights",
    )
    assert artifact.digest == DIGEST
    assert run_claims(found) == {"tune-1"}


@pytest.mark.parametrize(
    ("checkpoint_name", "step"), [("best", 10), ("last", 20), ("step-20-e1", 20), ("step-10-e1", 10)]
)
def test_checkpoint_of_a_full_job_is_a_whole_model(checkpoint_name: str, step: int) -> None:
    found = served({"model": {"from": {**FROM, "checkpoint": checkpoint_name}}}, training_job(method="full"))
    assert found.model.source.endswith(f"/checkpoints/step-{step}-e1")
    assert (found.base_name, found.adapters) == (NAME, ())
    assert found.status.digest == (DIGEST if step == 10 else OTHER_DIGEST)


def test_last_is_served_as_best_where_nothing_was_evaluated() -> None:
    job = training_job(checkpoints=[checkpoint(10), checkpoint(20, OTHER_DIGEST)])
    assert served({"model": {"from": FROM}}, job).adapters[0].checkpoint == "step-20-e1"


def test_export_is_a_whole_model() -> None:
    exports = [{"format": "merged", "state": "Succeeded", "uri": f"{RUN}/exports/merged", "digest": OTHER_DIGEST}]
    found = served({"model": {"from": {**FROM, "export": "merged"}}}, training_job(exports=exports))
    assert (found.model.source, found.model.files) == (f"run://{RUN.removeprefix('pvc://')}/exports/merged", "")
    assert (found.model.digest, found.adapters) == (OTHER_DIGEST, ())


STALLED_FAILURE: dict[str, Any] = {
    "conditions": [{"type": "Failed", "reason": "OutOfMemory"}],
    "message": "It ran out of memory.",
}


@pytest.mark.parametrize(
    ("reference", "job", "reason", "final", "text"),
    [
        (FROM, None, "TrainingJobNotFound", False, "There is no TrainingJob tune"),
        (FROM, training_job(phase="Running"), "WaitingForTrainingJob", False, "tune, which is Running"),
        (FROM, training_job(phase="Failed", **STALLED_FAILURE), "TrainingJobFailed", True, "(OutOfMemory): It ran out"),
        (FROM, training_job(checkpoints=[]), "CheckpointNotFound", True, "has no checkpoint"),
        ({**FROM, "checkpoint": "step-5-e1"}, training_job(), "CheckpointNotFound", True, "step-10-e1, step-20-e1"),
        ({**FROM, "export": "merged"}, training_job(), "ExportNotFound", False, "Add format: merged to spec.exports"),
        (
            {**FROM, "export": "merged"},
            training_job(exports=[{"format": "merged", "state": "Running"}]),
            "WaitingForExport",
            False,
            "is Running",
        ),
        (
            {**FROM, "export": "merged"},
            training_job(exports=[{"format": "merged", "state": "Failed", "message": "The disk is full."}]),
            "ExportFailed",
            False,
            "The disk is full.",
        ),
    ],
)
def test_model_that_cannot_be_served(reference: Any, job: Any, reason: str, final: bool, text: str) -> None:
    found = fault({"model": {"from": reference}}, *([job] if job else []))
    assert (found.reason, found.final) == (reason, final)
    assert text in found.message


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        (None, "TrainingJobNotFound"),
        (training_job("other", phase="Queued"), "WaitingForTrainingJob"),
        (training_job("other", method="full"), "NotAnAdapterJob"),
        (training_job("other", model={"source": "hf://org/base", "revision": "beef"}), "AdapterOfAnotherBase"),
    ],
)
def test_adapter_that_cannot_be_served_leaves_the_model(job: Any, reason: str) -> None:
    spec = {"model": {"from": FROM}, "adapters": [{"name": "other", "from": {"trainingJob": "other"}}]}
    found = served(spec, training_job(), *([job] if job else []))
    assert found.adapters[0].desired is not None
    assert found.adapters[1].fault is not None
    assert found.adapters[1].fault.reason == reason


def test_what_was_served_stays_while_the_job_is_away() -> None:
    spec = {"model": {"from": FROM}}
    before = served(spec, training_job())
    [adapter] = before.adapters
    assert adapter.desired is not None
    status = {
        "model": before.status.to_json(),
        "adapters": [{"name": NAME, "source": adapter.source, "digest": DIGEST, "checkpoint": "step-10-e1"}],
    }
    for jobs in ((), (training_job(phase="Running", checkpoints=[]),)):
        after = served(spec, *jobs, status=status, deployment=CHILD)
        assert after.model == before.model
        kept = after.adapters[0].desired
        assert kept is not None
        assert kept == adapter.desired
        assert "What was served before stays" in after.note
    assert fault(spec, status=status).reason == "TrainingJobNotFound"


@pytest.mark.parametrize("change", [{"export": "merged"}, {"checkpoint": "step-20-e1"}])
def test_reference_to_something_else_is_not_answered_with_what_was_served(change: Any) -> None:
    before = served({"model": {"from": FROM}}, training_job(method="full"))
    spec = {"model": {"from": {"trainingJob": FROM["trainingJob"], **change}}}
    found = fault(spec, status={"model": before.status.to_json()}, deployment=CHILD)
    assert found.reason == "TrainingJobNotFound"


@pytest.mark.parametrize("digest", ["sha256:00", "sha256:../../etc", "x"])
def test_malformed_digest_is_a_fault(digest: str) -> None:
    job = training_job(checkpoints=[checkpoint(10, digest)])
    assert fault({"model": {"from": FROM}}, job).reason == "MalformedStatus"
    spec = {"model": {"source": "hf://org/base"}, "adapters": [{"name": "a", "from": FROM}]}
    found = served(spec, {**job, "status": {**job["status"], "model": {"source": "hf://org/base"}}})
    assert found.adapters[0].fault is not None
    assert found.adapters[0].fault.reason == "MalformedStatus"


def test_named_jobs() -> None:
    spec = {
        "model": {"from": FROM},
        "adapters": [{"name": "a", "from": {"trainingJob": "b"}}, {"name": "c", "source": "hf://o/c"}],
    }
    assert named_jobs(observed(spec).spec) == {"tune", "b"}
