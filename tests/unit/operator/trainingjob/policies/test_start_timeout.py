"""Starts whose pods get no nodes in time."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.trainingjob.builders import GANG, child, condition, context, ended, pod, running
from tests.unit.operator.trainingjob.state_model import ADMITTED, CHILD, DAY, JobModel, at, merged, new_pod, suspends
from trainyard_kube.paths import Object
from trainyard_operator.queue.backoff import backoff
from trainyard_operator.reconcile.plan import FAILED_CREATE, Need, Refusal
from trainyard_operator.trainingjob.children.gang import INDEX_LABEL
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policies.start_timeout import time_out_start as policy
from trainyard_operator.trainingjob.policy_context import PolicyContext

NO_EVENT = {(FAILED_CREATE, CHILD): None}
TIMED = ADMITTED._replace(start_seconds=300, queue={"pool": "nvidia.com/gpu"})


def time_out_start(context: PolicyContext) -> Decision | None:
    found = policy(context)
    assert not isinstance(found, Need)
    return found


@pytest.fixture
def unbound() -> JobModel:
    """A job whose pod has had no node for the whole timeout."""
    model = JobModel()
    model.admission = TIMED
    for clock in ("10:00:00", "10:00:03"):
        model.now = at(clock)
        model.apply(model.plan())
        model.pods["a"] = new_pod("a", model.stamp)
    model.now = at("10:05:03")
    return model


def failed(model: JobModel) -> dict[str, object]:
    found: dict[str, object] = model.job["status"]["queue"].get("failedStarts") or {}
    return found


def test_failed_start_is_recorded_once_and_before_its_job_is_suspended(unbound: JobModel) -> None:
    first = unbound.plan()
    assert suspends(first) is None
    unbound.apply(first)
    assert (failed(unbound)["count"], failed(unbound)["notBefore"]) == (1, "2026-01-02T10:06:03Z")
    unbound.now = at("10:05:30")  # the operator restarted and has no admission yet
    unbound.admission = TIMED._replace(admitted=False, decided=False, start_seconds=None)
    second = unbound.plan()
    assert (suspends(second), second.status) == (True, None)
    unbound.apply(second)
    assert unbound.plan().status is None


def test_pod_that_gets_its_node_after_the_record_keeps_it(unbound: JobModel) -> None:
    unbound.apply(unbound.plan())
    unbound.pods["a"] = merged(unbound.pods["a"], {"spec": {"nodeName": "node-1"}})
    found = unbound.plan()
    assert suspends(found) is None
    assert found.status is not None
    assert found.status["phase"] == "Starting"


def test_one_unbound_pod_of_a_gang_times_out(unbound: JobModel) -> None:
    unbound.pods["b"] = merged(new_pod("b", "2026-01-02T10:00:00Z"), {"spec": {"nodeName": "node-1"}})
    found = unbound.plan()
    assert found.status is not None
    assert found.status["phase"] == "Suspending"


def test_timeout_of_a_broken_gang_begins_with_the_break() -> None:
    model = JobModel()
    model.job = merged(model.job, {"spec": {"resources": {"nodes": 2}}})
    model.admission = TIMED
    model.apply(model.plan())
    for index in ("0", "1"):
        bound = {"metadata": {"labels": {INDEX_LABEL: index}}, "spec": {"nodeName": "node-1"}}
        model.pods[index] = merged(new_pod(index, "2026-01-02T10:00:00Z"), bound | running_since("10:00:10"))
    model.now = at("10:00:20")
    model.apply(model.plan())
    assert model.job["status"]["phase"] == "Running"
    model.pods["1"] |= {"gone": True}
    model.pods["1"] = merged(model.pods["1"], {"status": ended_at("10:20:00")})
    model.now = at("10:20:05")
    model.apply(model.plan())
    assert model.job["status"]["phase"] == "Starting"
    assert not failed(model)


def running_since(since: str) -> Object:
    state = {"running": {"startedAt": f"{DAY}{since}Z"}}
    return {"status": {"phase": "Running", "containerStatuses": [{"name": "trainer", "state": state}]}}


def ended_at(moment: str) -> Object:
    state = {"terminated": {"exitCode": 137, "startedAt": f"{DAY}10:00:10Z", "finishedAt": f"{DAY}{moment}Z"}}
    return {"phase": "Failed", "containerStatuses": [{"name": "trainer", "state": state}]}


REFUSED = 'Error creating: pods "tune-5f8c1d2e-x2k4p" is forbidden: maximum memory usage per Container is 1Gi'


def test_failed_start_names_what_refused_the_pod() -> None:
    start: dict[str, Any] = {"child": child(), "now": "10:05:00", "admission": TIMED}
    assert policy(context(**start)) == Need(FAILED_CREATE, CHILD)
    found = time_out_start(context(**start, answers={(FAILED_CREATE, CHILD): REFUSED}))
    assert found is not None
    assert found.message.startswith(
        f"The Job {CHILD} gets no pod: the pod is forbidden: maximum memory usage per Container is 1Gi. The job rel"
    )


ELASTIC = TIMED._replace(start_seconds=1200, elastic=True, growth="It waits for a node of a100.")


@pytest.mark.parametrize(("now", "times_out"), [("10:19:59", False), ("10:20:00", True), ("10:45:00", True)])
def test_job_that_waits_for_a_new_node_has_its_own_timeout_and_no_start_deadline(now: str, times_out: bool) -> None:
    unscheduled = pod(status={"conditions": [condition("PodScheduled", holds=False, message="No room.")]})
    found = time_out_start(context(unscheduled, child=child(), now=now, admission=ELASTIC))
    assert (found is not None) is times_out
    if found is not None:
        assert found.failed_starts is not None
        assert found.failed_starts["seconds"] == 0
        assert found.failed_starts["message"] == "It waits for a node of a100. No node can take the pod: No room."


def test_job_without_gpus_has_no_timeout(unbound: JobModel) -> None:
    unbound.admission = TIMED._replace(start_seconds=None)
    assert unbound.plan().status is None


def test_backoff_doubles_up_to_an_hour() -> None:
    assert [backoff(count) for count in range(1, 9)] == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert backoff(10**6) == 3600


RECORDED = {"count": 1, "seconds": 300, "message": "No node.", "notBefore": f"{DAY}10:06:00Z"}
NOT_PLACED = [condition("Running", holds=False, reason="NotPlaced")]
REFUSAL = Refusal("CreateForbidden", "Not allowed.", final=False)
DENIAL = REFUSAL._replace(may_pass=True)
QUOTA = Refusal("QuotaExceeded", "Quota used up.", final=False, may_pass=True)


@pytest.mark.parametrize(
    ("pods", "case", "times_out"),
    [
        ([pod()], {}, True),
        ([pod()], {"now": "10:04:59"}, False),
        ([running()], {}, False),
        ([ended(code=75, until="10:01:00")], {}, False),
        ([], {}, True),
        ([running("0-a")], {"spec": GANG}, True),
        ([running("0-a"), running("1-a")], {"spec": GANG}, False),
        ([pod(metadata={"deletionTimestamp": f"{DAY}10:02:00Z"})], {}, False),
        ([pod()], {"admission": {"preempted": True}}, False),
        ([pod()], {"spec": {"startDeadlineSeconds": 300}}, False),
        ([], {"admission": {"quota": "The quota is used up."}}, True),
    ],
    ids=[
        "no node",
        "in time",
        "runs",
        "between attempts",
        "no pod",
        "pod of a gang missing",
        "gang runs",
        "pod is being deleted",
        "preempted",
        "start deadline",
        "quota",
    ],
)
def test_start_times_out(pods: list[Object], case: dict[str, Any], times_out: bool) -> None:
    admission = TIMED._replace(**case.pop("admission", {}))
    given: dict[str, Any] = {"child": child(), "now": "10:05:00", "admission": admission, "answers": NO_EVENT}
    found = time_out_start(context(*pods, **{**given, **case}))
    assert (found is not None) is times_out
    if found is not None:
        assert (found.phase, found.reason, found.suspend) == ("Suspending", "NotPlaced", None)
        assert found.message.endswith(
            "The job releases its GPUs, keeps its place in the queue and may start again at 10:06:00 UTC."
        )


@pytest.mark.parametrize(
    ("job", "pods", "suspends"),
    [
        (child(), [pod()], True),
        (child(), [running()], False),
        (child(suspend=True), [pod()], True),
        (child(condition("Suspended"), suspend=True), [], False),
    ],
    ids=["recorded", "placed after all", "suspended, pod remains", "done"],
)
def test_recorded_start_suspends_its_job(job: Object, pods: list[Object], suspends: bool) -> None:
    status = {"phase": "Suspending", "conditions": NOT_PLACED, "queue": {"failedStarts": RECORDED}}
    waiting = TIMED._replace(admitted=False)
    found = time_out_start(context(*pods, child=job, status=status, admission=waiting, now="10:05:01"))
    assert (found is not None) is suspends
    if found is not None:
        assert (found.suspend, found.failed_starts) == (True, RECORDED)


@pytest.mark.parametrize(
    ("case", "phase", "reason"),
    [
        ({"refusal": REFUSAL}, "Queued", "BackingOff"),
        ({"refusal": REFUSAL, "now": "10:04:59"}, None, None),
        ({"refusal": REFUSAL._replace(final=True)}, None, None),
        ({"refusal": REFUSAL, "spec": {"startDeadlineSeconds": 300}}, None, None),
        ({"refusal": DENIAL, "spec": {"startDeadlineSeconds": 300}}, "Queued", "BackingOff"),
        ({"refusal": QUOTA, "now": "10:00:30"}, "Queued", "BackingOff"),
        ({"refusal": QUOTA, "now": "10:00:29"}, None, None),
        ({"refusal": QUOTA, "admission": TIMED._replace(start_seconds=None)}, "Queued", "BackingOff"),
        ({"refusal": DENIAL, "admission": TIMED._replace(start_seconds=None)}, None, None),
        ({}, None, None),
    ],
    ids=[
        *("refused for the timeout", "in time", "final", "start deadline", "denial, no start deadline"),
        *("quota", "quota, in time", "quota, no GPUs", "denial, no GPUs", "not refused"),
    ],
)
def test_admission_of_a_refused_job_is_withdrawn(case: dict[str, Any], phase: str | None, reason: str | None) -> None:
    status = {"conditions": [condition("Admitted")]}
    found = time_out_start(context(**{"status": status, "admission": TIMED, "now": "10:05:00", **case}))
    assert (found and found.phase) == phase
    assert (found and found.reason) == reason


def test_denials_of_a_job_do_not_use_up_its_start_deadline() -> None:
    status = {"conditions": [condition("Admitted")], "queue": {"failedStarts": {**RECORDED, "seconds": 7}}}
    found = time_out_start(context(status=status, admission=TIMED, refusal=DENIAL, now="10:07:00"))
    assert found is not None
    assert found.failed_starts is not None
    assert (found.failed_starts["count"], found.failed_starts["seconds"]) == (2, 7)


@pytest.mark.parametrize(("now", "withdrawn"), [("10:05:00", True), ("10:04:59", False)])
def test_admission_of_a_job_whose_resumption_is_denied_is_withdrawn(now: str, withdrawn: bool) -> None:
    held, status = child(condition("Suspended"), suspend=True), {"conditions": [condition("Admitted")]}
    found = time_out_start(context(child=held, status=status, admission=TIMED, now=now, blocked="Denied: closed."))
    assert (found is not None) is withdrawn
    if found is not None:
        assert (found.phase, found.suspend) == ("Queued", None)
        assert found.message.startswith("Denied: closed. It keeps its place")


@pytest.mark.parametrize(("admitted", "waits"), [(True, True), (False, False)])
def test_job_in_backoff_is_not_started(admitted: bool, waits: bool) -> None:
    status = {"queue": {"failedStarts": RECORDED}}
    found = time_out_start(context(status=status, admission=TIMED._replace(admitted=admitted), now="10:05:30"))
    assert (found is not None) is waits
    if found is not None:
        assert found.phase is None
