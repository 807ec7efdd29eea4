"""Jobs whose start Kueue decides."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.trainingjob.builders import child, condition, context, ended, running
from tests.unit.operator.trainingjob.state_model import CHILD, CHILD_UID
from trainyard_crds.trainingjob_status import Phase
from trainyard_operator.admission.decision import Admission, KueueHandoff
from trainyard_operator.queue.kueue_workload import HELD_ANNOTATION, QUEUE_LABEL
from trainyard_operator.reconcile.plan import Patch
from trainyard_operator.trainingjob.kueue_adapter import PRIORITY_LABEL
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policies.kueue_handoff import (
    child_patches,
    fail_inadmissible,
    follow_kueue_eviction,
    queue_remark,
    refuse_local_queue,
)

LABELS = {QUEUE_LABEL: "gpus", PRIORITY_LABEL: "trainyard-p5"}
SUSPENDED = child(condition("Suspended"), suspend=True, labels=LABELS)
RUNS = child(labels=LABELS)
BUILTIN = Admission(admitted=True, reason="Admitted", message="")
HELD = {HELD_ANNOTATION: "true"}


def workload(*conditions: Any, active: bool = True, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    metadata = {"name": "w", "namespace": "team", "annotations": annotations or {}}
    return {
        "metadata": metadata,
        "spec": {"active": active, "queueName": "gpus"},
        "status": {"conditions": list(conditions)},
    }


def kueue(found: Any = None, *, admitted: bool = False, labels: dict[str, str] | None = None) -> Admission:
    handoff = KueueHandoff(LABELS if labels is None else labels, found)
    return Admission(admitted=admitted, reason="R", message="", handoff=handoff)


def patches(job: Any, suspend: bool | None, admission: Admission, spec: Any = None) -> list[Patch]:
    seen = context(child=job, spec=spec, admission=admission)
    decision = Decision(phase=Phase.QUEUED, suspend=suspend)
    return list(child_patches(seen.observed, decision, admission))


def suspension(value: bool) -> Patch:
    seen = {"uid": CHILD_UID, "resourceVersion": "7"}
    return Patch("jobs", CHILD, {"metadata": seen, "spec": {"suspend": value}}, required=True)


@pytest.mark.parametrize(
    ("job", "suspend", "admitted", "expected"),
    [
        (child(), True, True, [suspension(True)]),
        (child(suspend=True), True, True, []),
        (child(suspend=True), False, True, [suspension(False)]),
        (child(suspend=True), False, False, []),
        (child(), False, True, []),
        (child(), None, True, []),
        (child(condition("Complete")), True, True, []),
        (None, True, True, []),
    ],
    ids=["suspend", "suspended", "resume", "waits", "runs", "no change", "finished", "no Job"],
)
def test_builtin_queue_changes_the_jobs_suspend(
    job: Any, suspend: bool | None, admitted: bool, expected: list[Patch]
) -> None:
    assert patches(job, suspend, BUILTIN._replace(admitted=admitted)) == expected


def activation(active: bool) -> Patch:
    annotation = None if active else "true"
    body = {"metadata": {"annotations": {HELD_ANNOTATION: annotation}}, "spec": {"active": active}}
    return Patch("workloads", "w", body)


@pytest.mark.parametrize(
    ("found", "suspend", "expected"),
    [
        (workload(), True, [activation(False)]),
        (workload(active=False, annotations=HELD), True, []),
        (workload(active=False), True, []),
        (workload(active=False, annotations=HELD), False, [activation(True)]),
        (workload(active=False), False, []),
        (workload(), False, []),
        (workload(), None, []),
        (None, True, []),
    ],
    ids=["hold", "held", "inactive", "release", "held by another client", "active", "no change", "no Workload"],
)
def test_kueue_jobs_are_held_by_their_workload(found: Any, suspend: bool | None, expected: list[Patch]) -> None:
    assert patches(SUSPENDED, suspend, kueue(found)) == expected


EVICTED = workload(condition("Evicted"))
MOVED = {QUEUE_LABEL: "other", PRIORITY_LABEL: "trainyard-p5"}
RELABEL = Patch("jobs", CHILD, {"metadata": {"labels": {QUEUE_LABEL: "other"}}})
MOVE = Patch("workloads", "w", {"spec": {"queueName": "other"}})
PLAIN = child(suspend=True)
NO_START_TIME = Patch("jobs/status", CHILD, {"status": {"startTime": None}})
LABELLED = Patch("jobs", CHILD, {"metadata": {"labels": LABELS}})


@pytest.mark.parametrize(
    ("job", "admission", "spec", "expected"),
    [
        (SUSPENDED, kueue(workload()), {}, []),
        (SUSPENDED, kueue(workload(), labels=MOVED), {}, [RELABEL]),
        (
            SUSPENDED,
            kueue(EVICTED, labels=MOVED),
            {},
            [MOVE, RELABEL],
        ),
        (RUNS, kueue(workload(), labels=MOVED), {}, []),
        (
            RUNS,
            kueue(workload(), labels={QUEUE_LABEL: "gpus", PRIORITY_LABEL: "trainyard-p9"}),
            {},
            [Patch("jobs", CHILD, {"metadata": {"labels": {PRIORITY_LABEL: "trainyard-p9"}}})],
        ),
        (PLAIN, kueue(), {}, [NO_START_TIME, LABELLED]),
        (PLAIN, kueue(), {"suspend": True}, []),
        (PLAIN, kueue(), {"stop": "Graceful"}, []),
        (child(), kueue(), {}, []),
    ],
    ids=[
        "unchanged",
        "queue changed",
        "queue changed after an eviction",
        "queue changed while it runs",
        "priority changed while it runs",
        "Job of the builtin queue",
        "suspended by the user",
        "stopped by the user",
        "runs without Kueue",
    ],
)
def test_labels_for_kueue(job: Any, admission: Admission, spec: dict[str, Any], expected: list[Patch]) -> None:
    assert patches(job, None, admission, spec) == expected


@pytest.mark.parametrize(
    ("case", "refused"),
    [({}, True), ({"admission": kueue()}, False), ({"child": child()}, False), ({"spec": {}}, False)],
    ids=["builtin queue", "Kueue", "started before", "no name"],
)
def test_local_queue_is_refused_without_kueue(case: dict[str, Any], refused: bool) -> None:
    found = refuse_local_queue(context(**{"spec": {"queue": {"name": "gpus"}}, **case}))
    assert (found is not None) is refused
    if found is not None:
        assert (found.phase, found.reason) == ("Failed", "InvalidSpec")
        assert found.message.startswith("spec.queue.name is 'gpus', a LocalQueue of Kueue")


@pytest.mark.parametrize(
    ("job", "found", "pods", "reason"),
    [
        (RUNS, workload(condition("Evicted", reason="Preempted", message="Preempted.")), [running()], "Preempted"),
        (child(labels=LABELS, suspend=True), None, [running()], "Saving"),
        (RUNS, workload(active=False, annotations=HELD), [running()], "WaitingForTurn"),
        (RUNS, workload(condition("Admitted")), [running()], None),
        (SUSPENDED, workload(condition("Evicted", reason="Preempted")), [ended(code=75)], None),
        (child(labels=LABELS, suspend=True), workload(), [], None),
        (child(labels=LABELS, suspend=True, terminating=1), workload(), [], "WaitingForTurn"),
    ],
    ids=["evicted", "suspended", "held", "runs", "idle", "no pods", "pod terminates"],
)
def test_eviction_is_reported_until_the_pods_ended(job: Any, found: Any, pods: list[Any], reason: str | None) -> None:
    decision = follow_kueue_eviction(context(*pods, child=job, admission=kueue(found)))
    assert (decision and decision.reason) == reason
    if decision is not None:
        assert decision.phase == "Suspending"
        assert decision.message.startswith("The job saves a checkpoint. ")


def test_builtin_jobs_are_not_evicted_by_kueue() -> None:
    assert follow_kueue_eviction(context(running(), child=child(suspend=True), admission=BUILTIN)) is None


@pytest.mark.parametrize(
    ("job", "found", "fails"),
    [
        (SUSPENDED, workload(condition("Finished", reason="FailedToStart", message="conflict")), True),
        (RUNS, workload(condition("Finished", reason="FailedToStart", message="conflict")), False),
        (SUSPENDED, workload(condition("Finished", reason="Succeeded")), False),
        (SUSPENDED, workload(), False),
        (SUSPENDED, None, False),
    ],
    ids=["failed", "not idle", "finished", "waits", "no Workload"],
)
def test_job_that_kueue_cannot_start_fails(job: Any, found: Any, fails: bool) -> None:
    decision = fail_inadmissible(context(child=job, admission=kueue(found)))
    assert (decision is not None) is fails
    if decision is not None:
        assert (decision.phase, decision.reason) == ("Failed", "FailedToStart")
        assert decision.message.startswith("Kueue cannot start its Job: conflict. ")


@pytest.mark.parametrize(
    ("job", "admission", "name", "suspend", "remark"),
    [
        (None, BUILTIN, "gpus", None, ""),
        (child(), BUILTIN, None, None, ""),
        (child(), BUILTIN, "gpus", None, " spec.queue.name 'gpus' has no effect: this installation uses"),
        (RUNS, BUILTIN, None, None, " Its Job has Kueue's label queue-name, so only Kueue starts and stops it,"),
        (RUNS, kueue(workload()), "gpus", None, ""),
        (RUNS, kueue(workload()), "other", None, " spec.queue.name 'other' takes effect when the job waits the next"),
        (SUSPENDED, kueue(workload()), "other", None, ""),
        (RUNS, kueue(), None, True, " Kueue, which would stop its Job, has no Workload of it; spec.stop: Force ends"),
        (SUSPENDED, kueue(), None, True, ""),
        (SUSPENDED, kueue(workload(active=False)), None, True, " Resuming it takes more than spec.suspend: false. Its"),
        (SUSPENDED, kueue(workload(active=False, annotations=HELD)), None, True, ""),
    ],
    ids=[
        "no Job",
        "builtin",
        "name without Kueue",
        "label without Kueue",
        "same queue",
        "other queue while it runs",
        "other queue while it waits",
        "no Workload to stop",
        "no Workload, suspended",
        "deactivated by another client",
        "held",
    ],
)
def test_remarks(job: Any, admission: Admission, name: str | None, suspend: bool | None, remark: str) -> None:
    seen = context(child=job, spec={"queue": {"name": name}} if name else {}, admission=admission)
    found = queue_remark(seen, Decision(phase=Phase.SUSPENDED, suspend=suspend))
    assert found.startswith(remark)
    assert bool(found) is bool(remark)
    assert queue_remark(seen, Decision(phase=Phase.STOPPED, suspend=suspend)) == ""
