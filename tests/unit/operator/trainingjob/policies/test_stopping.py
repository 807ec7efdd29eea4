"""Stop, suspension and preemption."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.trainingjob.builders import (
    attempt,
    child,
    condition,
    context,
    ended,
    pod,
    report,
    running,
    time,
)
from tests.unit.operator.trainingjob.state_model import ADMITTED, CHILD, CHILD_UID
from trainyard_operator.admission.decision import KueueHandoff
from trainyard_operator.reconcile.plan import Deletion
from trainyard_operator.trainingjob.policies.stopping import stop, suspend, yield_gpus

SUSPENDED = child(condition("Suspended"), suspend=True)
TERMINATING = child(condition("Suspended"), suspend=True, terminating=1)
SAVED = ended(code=75, message=report("Interrupted", 75, step=40))
SAVED_ATTEMPT = {"attempts": [attempt(startedAt=time("10:00:05"))], "attemptCounts": {"total": 1}}


@pytest.mark.parametrize(
    ("case", "outcome"),
    [
        ({}, ("Stopped", "StoppedByUser", "The job was stopped before it started.")),
        (
            {"child": child(), "pods": [running()]},
            ("Stopping", "StopRequested", "The job saves a checkpoint and stops."),
        ),
        ({"child": SUSPENDED, "pods": [running()]}, ("Stopping", "StopRequested", None)),
        ({"child": child(suspend=True), "pods": [SAVED]}, ("Stopping", "StopRequested", None)),
        (
            {"child": child(condition("Suspended"), suspend=True, terminating=1), "pods": [SAVED]},
            ("Stopping", None, None),
        ),
        (
            {"child": SUSPENDED, "pods": [SAVED], "status": SAVED_ATTEMPT},
            ("Stopped", "StoppedByUser", "The job was stopped on request after step 40."),
        ),
    ],
    ids=["not started", "running", "pod still runs", "Job not suspended yet", "pod terminating", "saved"],
)
def test_graceful_stop_saves_first(case: dict[str, Any], outcome: tuple[str, str | None, str | None]) -> None:
    pods = case.pop("pods", [])
    found = stop(context(*pods, spec={"stop": "Graceful"}, **case))
    assert found is not None
    assert found.suspend
    phase, reason, message = outcome
    assert found.phase == phase
    assert reason in (None, found.reason)
    assert message in (None, found.message)


def deleted(seconds: int, **change: Any) -> dict[str, Any]:
    metadata = {"deletionTimestamp": time("10:09:30"), "deletionGracePeriodSeconds": seconds}
    return running(metadata=metadata, **change)


@pytest.mark.parametrize(
    ("pod_", "grace"),
    [(running(), 1), (deleted(120), 1), (deleted(1), 0), (ended(code=75), None)],
    ids=["running", "deleted gracefully", "node is dead", "ended"],
)
def test_forced_stop_shortens_grace_periods(pod_: dict[str, Any], grace: int | None) -> None:
    found = stop(context(pod_, child=child(), spec={"stop": "Force"}))
    assert found is not None
    assert (found.phase, found.reason) == ("Stopping", "StopForced")
    job = Deletion("jobs", CHILD, CHILD_UID)
    pods = () if grace is None else (Deletion("pods", f"{CHILD}-a", "pod-a", grace),)
    assert found.delete == (job, *pods)


def test_forced_stop_is_done_when_the_job_and_its_pods_are_gone() -> None:
    found = stop(context(ended(code=75), spec={"stop": "Force"}))
    assert found is not None
    assert (found.phase, found.reason) == ("Stopped", "StoppedByForce")


def test_job_without_stop_is_left_alone() -> None:
    assert stop(context(running(), child=child())) is None


@pytest.mark.parametrize(
    ("case", "phase", "reason"),
    [
        ({}, "Suspended", "SuspendedBeforeStart"),
        ({"child": child(), "pods": [running()]}, "Suspending", "SuspendRequested"),
        ({"child": child(suspend=True), "pods": [SAVED]}, "Suspending", "SuspendRequested"),
        ({"child": SUSPENDED, "pods": [pod()]}, "Suspending", "SuspendRequested"),
        ({"child": SUSPENDED, "pods": [SAVED]}, "Suspended", "SuspendedByUser"),
        ({"child": SUSPENDED}, "Suspended", "SuspendedByUser"),
    ],
    ids=["not started", "running", "Job not suspended yet", "pod pending", "saved", "no pod yet"],
)
def test_suspension_is_reported_when_the_gpus_are_free(case: dict[str, Any], phase: str, reason: str) -> None:
    pods = case.pop("pods", [])
    found = suspend(context(*pods, spec={"suspend": True}, **case))
    assert found is not None
    assert (found.phase, found.reason) == (phase, reason)
    assert found.suspend is (None if reason == "SuspendedBeforeStart" else True)


def test_job_without_suspend_is_left_alone() -> None:
    assert suspend(context(running(), child=child())) is None


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ({"child": child(), "admission": {"preempted": True}}, "Preempted"),
        ({"child": child(suspend=True), "admission": {"admitted": False}}, "Saving"),
        ({"child": child(suspend=True)}, None),
        ({"child": child()}, None),
        ({"child": SUSPENDED, "pods": [SAVED], "admission": {"preempted": True}}, None),
        ({"child": child(), "admission": {"preempted": True, "handoff": KueueHandoff({})}}, None),
    ],
    ids=["preempted", "still saving", "admitted again", "running", "idle", "Kueue decides"],
)
def test_preempted_job_saves_and_frees_its_gpus(case: dict[str, Any], reason: str | None) -> None:
    admission = ADMITTED._replace(**case.pop("admission", {}))
    pods = case.pop("pods", [running()])
    found = yield_gpus(context(*pods, admission=admission, **case))
    assert (found and found.reason) == reason
    if found is not None:
        assert found.phase == "Suspending"
