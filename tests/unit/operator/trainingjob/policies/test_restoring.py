"""A TrainingJob that was created again from a backup finds its run; a finished one stays finished."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.operator.trainingjob.builders import condition, context, report
from tests.unit.operator.trainingjob.state_model import NAME, UID, new_job, observed_of
from trainyard_crds.constants import RUN_ANNOTATION
from trainyard_kube.paths import Object
from trainyard_operator.reconcile.plan import Need, Plan
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policies.restoring import restore
from trainyard_operator.trainingjob.policies.starting import start_or_run
from trainyard_operator.trainingjob.policy_chain import decide
from trainyard_operator.trainingjob.queue_adapter import TrainingJobCandidate
from trainyard_operator.trainingjob.run_identity import run_uid, spec_digest, with_run_annotation
from trainyard_operator.trainingjob.spec import parse_spec
from trainyard_operator.trainingjob.status import desired_status

OLD_UID = "0badcafe-0000-4000-8000-000000000009"
RUN = f"{NAME}-0badcafe"
CLAIM = ("persistentvolumeclaims", RUN)
FOUND = {CLAIM: {"spec": {"accessModes": ["ReadWriteOnce"]}}}
URI = f"pvc://{RUN}/trainyard/{RUN}"
FINISHED = [condition("Complete")]


def annotated(**changes: Any) -> Object:
    """Annotations of a job whose run began with another UID."""
    run = {"name": NAME, "uid": OLD_UID, "spec": spec_digest(parse_spec(new_job()["spec"]).spec), **changes}
    return {"annotations": {RUN_ANNOTATION: json.dumps(run)}}


def restored(*, metadata: Object | None = None, spec: Object | None = None, **values: Any) -> Any:
    """What the policies decide from, for a restored job."""
    return context(spec=spec, metadata=annotated() if metadata is None else metadata, **values)


def check(*conditions: Object, message: Object | None = None) -> Object:
    """A check Job and its pod, as fields of the observation."""
    job = {
        "metadata": {"name": f"{NAME}-check", "uid": "check"},
        "spec": {},
        "status": {"conditions": list(conditions)},
    }
    state = {"terminated": {"exitCode": 0 if message else 66, "message": json.dumps(message) if message else ""}}
    pod = {
        "metadata": {"name": "check-pod", "uid": "p"},
        "spec": {},
        "status": {"phase": "Succeeded", "containerStatuses": [{"name": "trainer", "state": state}]},
    }
    return {"check": job, "check_pods": (pod,) if conditions else ()}


def decided(**values: Any) -> Decision:
    found = decide(restored(**values))
    assert isinstance(found, Decision), found
    return found


def test_the_claim_is_looked_up_first() -> None:
    assert decide(restored()) == Need(*CLAIM)


def test_the_result_is_read_before_anything_starts() -> None:
    found = decided(answers=FOUND)
    assert (found.phase, found.reason, found.waits) == ("Pending", "Restoring", True)
    (body,) = found.create
    assert body["metadata"]["labels"]["trainyard.dev/role"] == "check"
    pod = body["spec"]["template"]["spec"]
    assert f"/volumes/run/trainyard/{RUN}" in json.dumps(pod["containers"][0])
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == RUN
    assert decided(answers=FOUND, **check()).create == ()


def test_a_finished_run_stays_finished() -> None:
    found = decided(answers=FOUND, **check(*FINISHED, message=report(step=100)))
    assert (found.phase, found.reason) == ("Succeeded", "Restored")
    assert found.message == "Restored; the run had finished. Done."
    assert found.termination is not None
    assert found.termination.step == 100


NO_RESULT = report("Failed", 66)


@pytest.mark.parametrize("read", [check(condition("Failed")), check(condition("Retries"), message=NO_RESULT)])
def test_the_status_names_the_run_that_is_to_continue(read: Object) -> None:
    seen = restored(answers=FOUND, **read)
    found = decide(seen)
    assert isinstance(found, Decision)
    assert (found.phase, found.reason, found.create, found.requeue_after) == ("Pending", "Restored", (), 0.0)
    status = desired_status(seen.observed, found, seen.history, seen.admission, seen.now)
    assert status["runUri"] == URI
    assert "jobName" not in status


def test_an_unfinished_run_continues_in_its_directory() -> None:
    found = decided(status={"phase": "Pending", "runUri": URI})
    kinds = {body["kind"]: body for body in found.create}
    assert list(kinds) == ["ConfigMap", "Job"]  # the claim is the old one
    config = json.loads(kinds["ConfigMap"]["data"]["run.json"])
    assert config["runDirectory"].endswith(RUN)
    assert config["runUri"] == f"pvc://{RUN}/trainyard/{RUN}"
    assert config["job"]["uid"] == UID
    assert kinds["Job"]["metadata"]["name"] == f"{NAME}-{UID[:8]}"


def test_a_failed_run_stays_failed() -> None:
    found = decided(metadata=annotated(failed=True))
    assert (found.phase, found.reason) == ("Failed", "Restored")
    assert "spec.resumeFrom" in found.message


def test_a_missing_claim_is_awaited() -> None:
    found = decided(answers={CLAIM: None})
    assert (found.phase, found.reason, found.create) == ("Pending", "WaitingForClaim", ())
    assert "remove the annotation trainyard.dev/run" in found.message
    assert found.requeue_after is not None


def test_a_stopped_job_without_its_claim_stops() -> None:
    stopped = parse_spec(new_job()["spec"] | {"stop": "Graceful"}).spec
    metadata = annotated(spec=spec_digest(stopped))
    assert decided(metadata=metadata, spec={"stop": "Graceful"}, answers={CLAIM: None}).phase == "Stopped"


def test_a_run_that_was_read_is_not_read_again() -> None:
    assert restore(restored(status={"phase": "Queued", "runUri": f"pvc://{RUN}/trainyard/{RUN}"})) is None


@pytest.mark.parametrize(
    ("metadata", "spec"),
    [
        ({}, {}),
        (annotated(name="other"), {}),
        (annotated(), {"optimization": {"learningRate": 0.001}}),
        (annotated(uid=UID), {}),
        ({"annotations": {RUN_ANNOTATION: "{"}}, {}),
        ({"annotations": {RUN_ANNOTATION: "7"}}, {}),
    ],
    ids=["new", "copy under another name", "other settings", "own run", "no JSON", "no object"],
)
def test_another_run_is_new(metadata: Object, spec: Object) -> None:
    found = start_or_run(restored(metadata=metadata, spec=spec))
    assert isinstance(found, Decision)
    claim = next(body for body in found.create if body["kind"] == "PersistentVolumeClaim")
    assert claim["metadata"]["name"] == f"{NAME}-{UID[:8]}"


def test_defaults_and_changeable_fields_do_not_make_another_run() -> None:
    base = new_job()["spec"]
    changed = base | {"suspend": True, "queue": {"priority": 9}, "optimization": {}, "resources": {"gpus": 1}}
    assert spec_digest(parse_spec(changed).spec) == spec_digest(parse_spec(base).spec)
    assert spec_digest(parse_spec(base | {"method": "full"}).spec) != spec_digest(parse_spec(base).spec)


def test_a_restoring_job_holds_no_gpu() -> None:
    assert not TrainingJobCandidate(restored().observed).is_wanted
    assert TrainingJobCandidate(restored(status={"runUri": URI}).observed).is_wanted
    assert TrainingJobCandidate(context().observed).is_wanted


def test_the_annotation_is_written_once_and_alone() -> None:
    job = new_job()
    quiet, busy = Plan(requeue_after=5.0), Plan(status={"phase": "Running"})
    begun = job | {"status": {"runUri": "pvc://a/b"}}
    assert with_run_annotation(observed_of(job), quiet) == quiet
    assert with_run_annotation(observed_of(begun), busy) == busy
    planned = with_run_annotation(observed_of(begun), quiet)
    (patch,) = planned.patches
    assert (patch.kind, patch.name, planned.requeue_after) == ("trainingjobs", NAME, 5.0)
    assert "spec" not in patch.body
    written = begun | {"metadata": begun["metadata"] | patch.body["metadata"]}
    assert with_run_annotation(observed_of(written), quiet) == quiet
    assert run_uid(written, observed_of(written).spec) == UID
    failed = written | {"status": {"runUri": "pvc://a/b", "phase": "Failed"}}
    (patch,) = with_run_annotation(observed_of(failed), quiet).patches
    assert json.loads(patch.body["metadata"]["annotations"][RUN_ANNOTATION])["failed"] is True
