"""Admission decisions from Workloads: every condition and reason that Kueue writes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.trainingjob.state_model import (
    CHILD,
    SETTINGS,
    JobModel,
    merged,
    need_of,
    new_job,
    observed_of,
    suspends,
)
from trainyard_crds.trainingjob_status import Phase
from trainyard_kube.paths import Object
from trainyard_operator.admission.decision import Admission, KueueHandoff
from trainyard_operator.queue.kueue_workload import HELD_ANNOTATION, QUEUE_LABEL
from trainyard_operator.trainingjob.children.render import children
from trainyard_operator.trainingjob.kueue_adapter import PRIORITY_LABEL, workload_reason
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policies.kueue_handoff import child_patches

QUOTA = (
    "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor a, 1 more needed"
)
TOO_LARGE = (
    "couldn't assign flavors to pod set main: insufficient quota for nvidia.com/gpu in flavor a, previously considered "
    "podsets requests (0) + current podset request (4) > maximum capacity (2)"
)
NEVER = "Its queue never has that much: lower spec.resources, or ask the administrator for more quota."
FULL = "insufficient unused quota for cpu in flavor a, 1 more needed"
SMALL = (
    "insufficient quota for nvidia.com/gpu in flavor b, previously considered podsets requests (0) + current podset "
    "request (2) > maximum capacity (1)"
)
HELD = "It is held, or lacks what it names: see the condition Active in kubectl describe clusterqueue gpus."
NEVER_OF_THOSE = (
    "It may not use the other flavors of its queue, and this one never has that much: match another with "
    "spec.resources.nodeSelector and tolerations, lower spec.resources, or ask the administrator for more quota."
)
UNFIT = "couldn't assign flavors to pod set main: flavor a doesn't match node affinity"
NOWHERE = "No ResourceFlavor of its queue matches spec.resources.nodeSelector and tolerations."
AGAIN = "It resumes where it was when Kueue admits it."
WAITS = ("WaitingForTurn", "It waits in the LocalQueue gpus.")


def workload(*conditions: tuple[str, bool, str, str], active: bool = True, held: bool = False, **status: Any) -> Object:
    annotations = {HELD_ANNOTATION: "true"} if held else {}
    entries = [
        {"type": kind, "status": str(value), "reason": reason, "message": message}
        for kind, value, reason, message in conditions
    ]
    return {
        "metadata": {"name": "job-tune-1a2b3", "namespace": "team", "annotations": annotations},
        "spec": {"active": active, "queueName": "gpus"},
        "status": {"conditions": entries, **status},
    }


def refused(reason: str, message: str = QUOTA) -> tuple[str, bool, str, str]:
    return "QuotaReserved", False, reason, message


def evicted(reason: str, message: str) -> tuple[str, bool, str, str]:
    return "Evicted", True, reason, message


RESERVED = ("QuotaReserved", True, "QuotaReserved", "Quota reserved in ClusterQueue a")
STOPPED = ("Admitted", False, "NoReservation", "The workload has no reservation")
ADMITTED = ("Admitted", True, "Admitted", "The workload is admitted")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (workload(), WAITS),
        (workload(refused("Pending")), ("WaitingForQuota", f"Kueue has not admitted it: {QUOTA}.")),
        (
            workload(refused("Pending", TOO_LARGE)),
            ("ExceedsMaxQuota", f"Kueue has not admitted it: {TOO_LARGE}. {NEVER}"),
        ),
        (
            workload(refused("ExceedsMaxQuota", TOO_LARGE)),
            ("ExceedsMaxQuota", f"Kueue has not admitted it: {TOO_LARGE}. {NEVER}"),
        ),
        (workload(refused("Pending", UNFIT)), ("NoMatchingFlavor", f"Kueue has not admitted it: {UNFIT}. {NOWHERE}")),
        (
            workload(refused("Pending", f"{QUOTA}, untolerated taint x in flavor b")),
            ("WaitingForQuota", f"Kueue has not admitted it: {QUOTA}, untolerated taint x in flavor b."),
        ),
        (workload(refused("WaitingForQuota")), ("WaitingForQuota", f"Kueue has not admitted it: {QUOTA}.")),
        (
            workload(refused("ExceedsMaxQuota", "too much.")),
            ("ExceedsMaxQuota", "Kueue has not admitted it: too much."),
        ),
        (
            workload(refused("NoMatchingFlavor", "no flavor")),
            ("NoMatchingFlavor", "Kueue has not admitted it: no flavor."),
        ),
        (
            workload(refused("Inadmissible", "LocalQueue gpus doesn't exist")),
            ("Inadmissible", "Kueue has not admitted it: LocalQueue gpus doesn't exist."),
        ),
        (workload(refused("Suspended", "")), ("Suspended", "Kueue has not admitted it: Suspended.")),
        (
            workload(RESERVED, admissionChecks=[{"name": "budget", "state": "Retry"}]),
            ("WaitingForAdmissionChecks", "Its quota is reserved; it waits for admission checks: budget (Retry)."),
        ),
        (
            workload(
                RESERVED, admissionChecks=[{"name": "nodes", "state": "Pending", "message": "Nodes come in 10 min."}]
            ),
            (
                "WaitingForAdmissionChecks",
                "Its quota is reserved; it waits for admission checks: nodes (Pending: Nodes come in 10 min.).",
            ),
        ),
        (
            workload(RESERVED),
            ("WaitingForAdmissionChecks", "Its quota is reserved; it waits for admission checks."),
        ),
        (workload(RESERVED, ADMITTED), None),
        (workload(RESERVED, ADMITTED, ("Evicted", False, "QuotaReserved", "Previously: x")), None),
        (
            workload(RESERVED, ADMITTED, evicted("Preempted", "Preempted to accommodate a workload")),
            ("Preempted", f"Kueue stopped it: Preempted to accommodate a workload. {AGAIN}"),
        ),
        (
            workload(
                refused("Pending", "Exceeded the timeout"),
                STOPPED,
                evicted("PodsReadyTimeout", "Exceeded the timeout"),
                requeueState={"count": 2, "requeueAt": "2026-01-02T10:02:00Z"},
            ),
            (
                "PodsReadyTimeout",
                f"Kueue stopped it: Exceeded the timeout. {AGAIN} Kueue considers it again at 2026-01-02T10:02:00Z.",
            ),
        ),
        *[
            (
                workload(refused("Pending", "x"), STOPPED, evicted(reason, "x")),
                (reason, f"Kueue stopped it: x. {AGAIN}"),
            )
            for reason in ("AdmissionCheck", "ClusterQueueStopped", "LocalQueueStopped", "NodeFailures")
        ],
        *[
            (
                workload(refused("Pending", "x"), STOPPED, evicted("Preempted", "x"), ("Preempted", True, reason, "x")),
                ("Preempted", f"Kueue stopped it: x.{meaning} {AGAIN}"),
            )
            for reason, meaning in (
                ("InClusterQueue", ""),
                ("InCohortReclamation", " A queue that lent its quota takes it back."),
                ("InCohortReclaimWhileBorrowing", " A queue that lent its quota takes it back."),
                ("InCohortFairSharing", " Its queue had borrowed more than its fair share."),
            )
        ],
        (
            workload(refused("Pending"), STOPPED, evicted("Preempted", "x")),
            ("Preempted", f"Kueue stopped it: x. Kueue has not admitted it: {QUOTA}. {AGAIN}"),
        ),
        (
            workload(refused("Pending", TOO_LARGE), STOPPED, evicted("Preempted", "x")),
            ("Preempted", f"Kueue stopped it: x. Kueue has not admitted it: {TOO_LARGE}. {NEVER} {AGAIN}"),
        ),
        (
            workload(refused("Pending", "no budget"), evicted("AdmissionCheck", "no budget")),
            ("AdmissionCheck", "Kueue took its quota back: no budget. It starts when Kueue admits it."),
        ),
        (
            workload(refused("Pending", f"{FULL}, {SMALL}")),
            ("WaitingForQuota", f"Kueue has not admitted it: {FULL}, {SMALL}."),
        ),
        (
            workload(refused("Pending", f"{FULL}, {TOO_LARGE}")),
            ("ExceedsMaxQuota", f"Kueue has not admitted it: {FULL}, {TOO_LARGE}. {NEVER}"),
        ),
        (
            workload(refused("Pending", f"{UNFIT}, {SMALL}")),
            ("ExceedsMaxQuota", f"Kueue has not admitted it: {UNFIT}, {SMALL}. {NEVER_OF_THOSE}"),
        ),
        (
            workload(refused("Inadmissible", "ClusterQueue gpus is inactive")),
            (
                "Inadmissible",
                f"Kueue has not admitted it: ClusterQueue gpus is inactive. {HELD}",
            ),
        ),
        (
            workload(
                refused("Pending", "The workload is deactivated"), evicted("Deactivated", "The workload is deactivated")
            ),
            WAITS,
        ),
        (
            workload(refused("Pending"), evicted("Deactivated", "The workload is deactivated")),
            ("WaitingForQuota", f"Kueue has not admitted it: {QUOTA}."),
        ),
        (workload(refused("Deactivated"), evicted("Deactivated", "x"), active=False, held=True), WAITS),
    ],
)
def test_reason_and_message_of_a_workload(found: Object, expected: tuple[str, str] | None) -> None:
    assert workload_reason(found) == expected


def test_deactivation_by_another_client_names_the_remedy() -> None:
    for conditions in ([], [evicted("Deactivated", "The workload is deactivated")]):
        reason, message = workload_reason(workload(*conditions, active=False)) or ("", "")
        assert reason == "Deactivated"
        assert "kubectl patch workloads.kueue.x-k8s.io job-tune-1a2b3 -n team --type=merge" in message


WORD, SAID = "DeactivatedDueToAdmissionCheck", "The workload is deactivated due to AdmissionCheck"


@pytest.mark.parametrize(
    ("conditions", "active"),
    [
        ((RESERVED, ("DeactivationTarget", True, "AdmissionCheck", "AdmissionCheck")), False),
        ((refused("Pending", SAID), evicted(WORD, SAID), ("Requeued", False, WORD, SAID)), False),
        ((refused("Pending", SAID), evicted(WORD, SAID), ("Requeued", False, WORD, SAID)), True),
    ],
)
def test_deactivation_by_kueue_needs_a_new_workload(
    conditions: tuple[tuple[str, bool, str, str], ...], active: bool
) -> None:
    expected = (
        f"Its Workload was deactivated, not by spec.suspend: {SAID}. A user with permission queues it again by "
        "kubectl delete workloads.kueue.x-k8s.io job-tune-1a2b3 -n team."
    )
    assert workload_reason(workload(*conditions, active=active)) == (WORD, expected)


def test_requeued_workload_is_reported_like_any_other() -> None:
    past = ("Requeued", False, "DeactivatedDueToAdmissionCheck", "x")
    assert workload_reason(workload(RESERVED, ADMITTED, past)) is None
    assert workload_reason(workload(refused("Pending"), ("Requeued", True, "Reactivated", "x"))) == (
        "WaitingForQuota",
        f"Kueue has not admitted it: {QUOTA}.",
    )


def test_job_that_kueue_cannot_start_fails_with_its_message() -> None:
    model = kueue_world()
    model.workload = workload(("Finished", True, "FailedToStart", "invalid podset infos: conflict in nodeSelector"))
    planned = model.plan()
    assert planned.status is not None
    assert planned.status["phase"] == "Failed"
    assert planned.status["message"] == (
        "Kueue cannot start its Job: invalid podset infos: conflict in nodeSelector. Create a TrainingJob whose "
        "spec.resources (nodeSelector, tolerations) match the ResourceFlavors of its queue."
    )
    model.workload = workload(("Finished", True, "Failed", "x"))
    planned = model.plan()
    assert planned.status is None or planned.status["phase"] != "Failed"


def test_job_is_created_suspended_with_kueue_labels() -> None:
    handoff = KueueHandoff({"kueue.x-k8s.io/queue-name": "gpus", "kueue.x-k8s.io/priority-class": "trainyard-p9"})
    admission = Admission(admitted=True, reason="Admitted", message="", handoff=handoff)
    job = children(observed_of(new_job()), SETTINGS, admission)[-1]
    assert job["spec"]["suspend"] is True
    assert handoff.labels.items() <= job["metadata"]["labels"].items()
    pods = job["spec"]["template"]["metadata"]["labels"]
    assert not [label for label in pods if label.startswith("kueue")]


def test_job_has_the_parameters_of_its_provisioning_request() -> None:
    parameters = {"provreq.kueue.x-k8s.io/maxRunDurationSeconds": "3600"}
    topology = {"kueue.x-k8s.io/podset-preferred-topology": "rack"}
    given = merged(new_job(), {"spec": {"pod": {"annotations": {**parameters, **topology}}}})
    admission = Admission(admitted=True, reason="Admitted", message="", handoff=KueueHandoff({QUEUE_LABEL: "gpus"}))
    job = children(observed_of(given), SETTINGS, admission)[-1]
    assert parameters.items() <= job["metadata"]["annotations"].items(), "Kueue reads them from the Job"
    assert topology.items() <= job["spec"]["template"]["metadata"]["annotations"].items()


def kueue_world() -> JobModel:
    model = JobModel()
    model.kueue = {"default": "gpus"}
    model.apply(model.plan())
    assert model.child is not None
    model.child["status"] = {"conditions": [{"type": "Suspended", "status": "True", "lastTransitionTime": model.stamp}]}
    return model


def test_suspended_builtin_job_is_labelled_when_it_may_continue() -> None:
    model = kueue_world()
    assert model.child is not None
    handed = model.child["metadata"].pop("labels")
    model.job["spec"]["suspend"] = True
    assert model.plan().patches == ()
    model.job["spec"]["suspend"] = False
    planned = model.plan()
    cleared, *labelled = planned.patches
    assert cleared.body == {"status": {"startTime": None}}
    assert [patch.body["metadata"]["labels"] for patch in labelled] == [
        {key: handed[key] for key in ("kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class")}
    ]
    assert suspends(planned) is None
    model.apply(planned)
    assert model.plan().patches == ()


def test_running_builtin_job_is_suspended_by_its_own_field() -> None:
    model = kueue_world()
    assert model.child is not None
    del model.child["metadata"]["labels"]
    model.child |= {"spec": {**model.child["spec"], "suspend": False}, "status": {"active": 1}}
    model.job["spec"]["suspend"] = True
    assert (suspends(model.plan()), len(model.plan().patches)) == (True, 1)


def test_builtin_queue_leaves_kueue_jobs_alone_and_reports_it() -> None:
    model = kueue_world()
    model.kueue = None
    planned = model.plan()
    assert (suspends(planned), planned.patches) == (None, ())
    assert planned.status is not None
    assert "only Kueue starts and stops it" in planned.status["message"]


def test_running_job_without_workload_names_the_remedy() -> None:
    model = kueue_world()
    assert model.child is not None
    model.child |= {"spec": {**model.child["spec"], "suspend": False}, "status": {"active": 1}}
    model.job["spec"]["suspend"] = True
    planned = model.plan()
    assert (suspends(planned), planned.patches) == (None, ())
    assert planned.status is not None
    assert planned.status["message"].endswith("has no Workload of it; spec.stop: Force ends it without saving.")


def test_suspended_job_that_kueue_deactivated_names_the_remedy() -> None:
    model = kueue_world()
    model.job["spec"]["suspend"] = True
    model.workload = workload(evicted(WORD, SAID), active=False)
    planned = model.plan()
    assert planned.status is not None
    assert (planned.status["phase"], planned.patches) == ("Suspended", ())
    assert planned.status["message"].endswith(
        " Resuming it takes more than spec.suspend: false. "
        f"Its Workload was deactivated, not by spec.suspend: {SAID}. "
        "A user with "
        "permission queues it again by kubectl delete workloads.kueue.x-k8s.io job-tune-1a2b3 -n team."
    )
    model.workload = workload(evicted("Deactivated", SAID), active=False, held=True)
    planned = model.plan()
    assert planned.status is None or "will not do" not in planned.status["message"]


def test_queue_name_of_a_running_builtin_job_is_reported_as_unused() -> None:
    model = JobModel()
    model.apply(model.plan())
    model.job["spec"]["queue"] = {"name": "gpus"}
    planned = model.plan()
    assert planned.status is None or "spec.queue.name 'gpus' has no effect" in planned.status["message"]
    model.now = model.now.replace(minute=1)
    model.answers = {need_of("failed-create", CHILD): None}
    planned = model.plan()
    assert planned.status is not None
    assert planned.status["message"].endswith(
        "spec.queue.name 'gpus' has no effect: this installation uses its builtin queue."
    )


def changes(*, child_labels: Object, found: Object | None) -> list[tuple[str, Object]]:
    handoff = KueueHandoff({QUEUE_LABEL: "other", PRIORITY_LABEL: "trainyard-p5"}, found)
    admission = Admission(admitted=False, reason="Waits", message="", handoff=handoff)
    child: Object = {"metadata": {"name": "tune", "labels": child_labels}, "spec": {"suspend": True}}
    decision = Decision(phase=Phase.QUEUED, suspend=False)
    made = child_patches(observed_of(new_job(), child=child), decision, admission)
    return [(patch.kind, patch.body) for patch in made]


LABELLED = {QUEUE_LABEL: "gpus", PRIORITY_LABEL: "trainyard-p5"}
RELABELLED = ("jobs", {"metadata": {"labels": {QUEUE_LABEL: "other"}}})


@pytest.mark.parametrize(
    ("found", "moves"),
    [
        (workload(refused("Pending"), evicted("Preempted", "x")), True),
        (workload(refused("Pending")), False),
        (workload(RESERVED, evicted("Preempted", "x")), False),
    ],
)
def test_evicted_workload_moves_to_another_queue_with_its_job(found: Object, moves: bool) -> None:
    moved = [("workloads", {"spec": {"queueName": "other"}})] if moves else []
    assert changes(child_labels=LABELLED, found=found) == [*moved, RELABELLED]


def test_job_that_ran_before_kueue_loses_its_start_time() -> None:
    labelled = ("jobs", {"metadata": {"labels": {QUEUE_LABEL: "other", PRIORITY_LABEL: "trainyard-p5"}}})
    first = changes(child_labels={}, found=None)
    assert first == [("jobs/status", {"status": {"startTime": None}}), labelled]
    assert changes(child_labels=LABELLED, found=None) == [RELABELLED]
