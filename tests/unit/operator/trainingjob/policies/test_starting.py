"""From admission to a running container."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.trainingjob.builders import GANG, child, condition, context, ended, pod, running, time
from tests.unit.operator.trainingjob.state_model import ADMITTED, CHILD, JobModel
from trainyard_operator.admission.decision import Admission, KueueHandoff
from trainyard_operator.reconcile.plan import Need, Refusal
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policies.starting import start_or_run
from trainyard_operator.trainingjob.queue_adapter import TrainingJobCandidate

WAITS = Admission(admitted=False, reason="WaitingForGPUs", message="It waits.")
UNDECIDED = Admission(admitted=False, reason="", message="", decided=False)
CLAIM = {**GANG, "storage": {"claimName": "data"}}
CLAIM_NEED = ("persistentvolumeclaims", "data")
STARTING = {"phase": "Starting"}


def decided(*args: Any, **values: Any) -> Decision:
    found = start_or_run(context(*args, **values))
    assert isinstance(found, Decision)
    return found


@pytest.mark.parametrize(
    ("spec", "kinds"),
    [
        ({}, ["ConfigMap", "PersistentVolumeClaim", "Job"]),
        ({"storage": {"claimName": "data"}}, ["ConfigMap", "Job"]),
        (GANG, ["ConfigMap", "PersistentVolumeClaim", "Service", "Job"]),
    ],
    ids=["claim", "existing claim", "gang"],
)
def test_admitted_job_gets_its_children(spec: dict[str, Any], kinds: list[str]) -> None:
    found = decided(spec=spec)
    assert found.phase is None
    assert [body["kind"] for body in found.create] == kinds


@pytest.mark.parametrize(
    ("admission", "phase", "reason"),
    [
        (WAITS, "Queued", "WaitingForGPUs"),
        (WAITS._replace(pending=True), "Pending", "WaitingForGPUs"),
        (UNDECIDED, None, ""),
    ],
    ids=["waits", "misconfigured", "undecided"],
)
@pytest.mark.parametrize("job", [None, child(suspend=True)], ids=["new", "suspended"])
def test_job_that_is_not_admitted_waits(admission: Admission, phase: str | None, reason: str, job: Any) -> None:
    found = decided(child=job, admission=admission)
    assert (found.phase, found.reason, found.create) == (phase, reason, ())
    assert found.waits is (phase is not None)


def test_invalid_spec_fails_at_admission() -> None:
    assert decided(spec={"method": "dora"}, admission=WAITS).phase == "Queued"
    found = decided(spec={"method": "dora"})
    assert (found.phase, found.reason) == ("Failed", "InvalidSpec")
    assert found.message.startswith("spec.method: Input should be")


@pytest.mark.parametrize(
    ("claim", "fails"),
    [
        ({"spec": {"accessModes": ["ReadWriteMany"]}}, False),
        ({"spec": {"accessModes": ["ReadWriteOnce", "ReadWriteMany"]}}, False),
        ({"spec": {"accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}}, True),
        (None, False),
    ],
    ids=["shared", "both", "not shared", "missing"],
)
def test_claim_of_a_gang_must_be_shared(claim: Any, fails: bool) -> None:
    assert start_or_run(context(spec=CLAIM)) == Need(*CLAIM_NEED)
    found = decided(spec=CLAIM, answers={CLAIM_NEED: claim})
    assert (found.phase == "Failed") is fails
    if fails:
        assert found.reason == "InvalidSpec"
        assert "the claim data allows ReadWriteOnce, ReadOnlyMany only, but the 2 pods" in found.message


@pytest.mark.parametrize(
    ("case", "needs"),
    [
        ({"admission": WAITS}, True),
        ({"admission": WAITS, "status": {"phase": "Queued"}}, False),
        ({"status": {"phase": "Queued"}}, True),
        ({"spec": {"storage": {"claimName": "data"}}}, False),
    ],
    ids=["new", "waits", "admitted", "one node"],
)
def test_claim_is_looked_up_when_the_job_is_new_and_when_it_is_admitted(case: dict[str, Any], needs: bool) -> None:
    found = start_or_run(context(**{"spec": CLAIM, **case}))
    assert (found == Need(*CLAIM_NEED)) is needs


def scheduled(clock: str) -> Any:
    return pod(status={"conditions": [condition("PodScheduled", since=clock)]}, spec={"nodeName": "n1"})


@pytest.mark.parametrize(
    ("found", "now", "phase"),
    [
        (pod(), "10:59:00", "Starting"),
        (scheduled("10:40:00"), "11:09:59", "Starting"),
        (scheduled("10:40:00"), "11:10:00", "Failed"),
    ],
    ids=["no node yet", "new node", "new node, too late"],
)
def test_start_deadline_begins_when_a_new_node_is_there(found: Any, now: str, phase: str) -> None:
    elastic = ADMITTED._replace(elastic=True, start_seconds=7200)
    assert decided(found, child=child(), now=now, admission=elastic, status=STARTING).phase == phase


def test_refusal_of_a_pod_is_looked_up() -> None:
    seen: dict[str, Any] = {"child": child(), "now": "10:00:30", "status": STARTING}
    assert start_or_run(context(**seen)) == Need("failed-create", CHILD)
    assert start_or_run(context(pod(), **seen)) != Need("failed-create", CHILD)


NO_QUOTA = WAITS._replace(reason="QuotaExceeded")
CREATED_NEED = ("persistentvolumeclaims", CHILD)


def test_claim_of_an_earlier_start_is_looked_up_while_the_job_waits_for_quota() -> None:
    assert start_or_run(context(admission=NO_QUOTA)) == Need(*CREATED_NEED)
    known: list[dict[str, Any]] = [{"status": {"runUri": "pvc://x/y"}}, {"spec": {"storage": {"claimName": "data"}}}]
    for case in known:
        assert decided(admission=NO_QUOTA, **case).phase == "Queued"
    assert decided(admission=WAITS).phase == "Queued"


@pytest.mark.parametrize(
    ("case", "exists"),
    [
        ({"answers": {Need(*CREATED_NEED): {"metadata": {}}}}, True),
        ({"answers": {Need(*CREATED_NEED): None}}, False),
        ({"refusal": Refusal("CreateForbidden", "No.", final=False, child="Job")}, True),
        ({"refusal": Refusal("QuotaExceeded", "No.", final=False, child="PersistentVolumeClaim")}, False),
    ],
    ids=["found", "not found", "Job refused", "claim refused"],
)
def test_status_records_the_claim_that_exists_before_the_job(case: dict[str, Any], exists: bool) -> None:
    model = JobModel()
    model.admission = ADMITTED if "refusal" in case else NO_QUOTA
    for name, value in case.items():
        setattr(model, name, value)
    status = model.plan().status or {}
    assert ("runUri" in status) is exists
    assert "jobName" not in status, "a job whose Job was recorded and is gone has failed"
    model.apply(model.plan())
    waiting = (
        TrainingJobCandidate(model.observed())
        .entry(enqueued_at=model.now, now=model.now, grant=None, preempted=False, history=lambda *_: None)
        .waiting
    )
    assert waiting is not None
    assert ("persistentvolumeclaims" in waiting.created_usage) is not exists
    assert waiting.created_usage["count/jobs.batch"] == 1


@pytest.mark.parametrize(
    ("refusal", "case", "phase", "waits"),
    [
        (Refusal("InvalidSpec", "No.", final=True), {}, "Failed", False),
        (Refusal("QuotaExceeded", "No.", final=False), {}, "Pending", False),
        (Refusal("NameTaken", "No.", final=False), {"since": "09:40:00"}, "Failed", False),
        (Refusal("CreateForbidden", "No.", final=False, may_pass=True), {"since": "09:40:00"}, "Pending", False),
        (Refusal("CreateForbidden", "No.", final=False), {"handoff": True}, "Pending", True),
        (Refusal("WebhookUnavailable", "No.", final=False, transient=True), {"handoff": True}, "Queued", True),
    ],
    ids=["final", "retried", "too long", "denied for long", "Kueue refuses", "Kueue is down"],
)
def test_refused_children(refusal: Refusal, case: dict[str, Any], phase: str, waits: bool) -> None:
    admission = ADMITTED._replace(handoff=KueueHandoff({})) if case.get("handoff") else ADMITTED
    admitted = condition("Admitted", since=case.get("since", "10:09:00"))
    found = decided(refusal=refusal, admission=admission, status={"conditions": [admitted]})
    assert (found.phase, found.reason, found.waits) == (phase, refusal.reason, waits)


@pytest.mark.parametrize(
    ("now", "pods", "status", "delayed"),
    [
        ("10:00:01", [], {}, 1.0),
        ("10:00:01", [pod()], {}, 1.0),
        ("10:00:02", [pod()], {}, None),
        ("10:00:01", [running(since="10:00:01")], {}, None),
        ("10:00:01", [pod()], STARTING, None),
    ],
    ids=["no pod", "pending", "after two seconds", "running", "reported"],
)
def test_first_status_is_delayed(now: str, pods: list[Any], status: dict[str, Any], delayed: float | None) -> None:
    found = decided(*pods, child=child(), now=now, status=status)
    assert (found.phase is None) is (delayed is not None)
    if delayed is not None:
        assert found.requeue_after == delayed


@pytest.mark.parametrize(
    ("pods", "case", "phase", "reason", "requeue_after"),
    [
        ([running()], {}, "Running", "TrainerRunning", None),
        ([running()], {"spec": {"activeDeadlineSeconds": 900}}, "Running", "TrainerRunning", 305.0),
        ([running("0-a"), running("1-a")], {"spec": GANG}, "Running", "TrainerRunning", None),
        ([pod()], {"now": "10:00:10"}, "Starting", "JobCreated", 20.0),
        ([pod()], {}, "Starting", "JobCreated", 1200.0),
        ([pod()], {"now": "10:30:00"}, "Failed", "JobCreated", None),
        ([pod()], {"spec": {"startDeadlineSeconds": 600}}, "Failed", "JobCreated", None),
        ([], {"child": child(suspend=True)}, "Starting", "JobCreated", 1200.0),
    ],
    ids=["runs", "deadline", "gang runs", "new", "starting", "late", "own deadline", "resumed"],
)
def test_start_and_run(
    pods: list[Any], case: dict[str, Any], phase: str, reason: str, requeue_after: float | None
) -> None:
    resumed = case.get("child")
    found = decided(*pods, **{"child": child(), "status": STARTING, **case})
    if resumed is not None:
        assert (found.phase, found.suspend) == (phase, False)
        return
    assert (found.phase, found.reason, found.requeue_after) == (phase, reason, requeue_after)
    if phase == "Failed":
        assert "The container did not run within" in found.message


def test_broken_gang_is_reported() -> None:
    found = decided(running("0-a"), ended("1-a", 137, until="10:09:00"), child=child(), spec=GANG, status=STARTING)
    assert (found.phase, found.reason) == ("Starting", "GroupRestarts")


def test_failed_starts_count_against_the_deadline() -> None:
    queue = {"failedStarts": {"count": 2, "seconds": 1300, "message": "m", "notBefore": time("10:00:00")}}
    found = decided(pod(), child=child(), status={**STARTING, "queue": queue})
    assert found.phase == "Failed"
