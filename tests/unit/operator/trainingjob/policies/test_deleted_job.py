"""Jobs whose training Job another client deleted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.trainingjob.builders import attempt, child, condition, context, ended, report, running, time
from tests.unit.operator.trainingjob.state_model import CHILD
from trainyard_kube.paths import Object
from trainyard_operator.reconcile.plan import LOG
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policies.deleted_job import end_without_job

STATUS: Object = {
    "jobName": CHILD,
    "attempts": [attempt(finishedAt=time("10:05:00"))],
    "attemptCounts": {"total": 1},
    "conditions": [condition("Running", holds=False, reason="JobDeleted")],
}


def decided(*pods: Object, **values: Any) -> Decision:
    found = end_without_job(context(*pods, **{"status": STATUS, **values}))
    assert isinstance(found, Decision)
    return found


def check(outcome: str) -> dict[str, Any]:
    """A check Job whose pod reported."""
    job = child(condition("Complete" if outcome == "Finished" else "Failed"))
    return {"check": job, "check_pods": (ended("check", message=report(outcome, message="Trained.")),)}


def test_result_of_a_run_that_may_have_finished_is_read_first() -> None:
    reported = decided(status={**STATUS, "conditions": []})
    assert (reported.phase, reported.reason, reported.create) == ("Stopping", "JobDeleted", ())
    found = decided()
    assert [body["metadata"]["name"] for body in found.create] == [f"{CHILD}-check"]
    assert found.phase is None


@pytest.mark.parametrize(
    ("outcome", "phase", "reason"),
    [("Finished", "Succeeded", "TrainingFinished"), ("Interrupted", "Failed", "JobDeleted")],
)
def test_run_ends_as_its_result_says(outcome: str, phase: str, reason: str) -> None:
    found = decided(**check(outcome))
    assert (found.phase, found.reason) == (phase, reason)
    if phase == "Failed":
        assert found.message.startswith(f"The training Job {CHILD} was deleted by another client.")


def test_pods_that_run_on_are_stopped_first() -> None:
    found = decided(running(), status={"jobName": CHILD})
    assert (found.phase, found.reason) == ("Stopping", "JobDeleted")
    assert [each.name for each in found.delete] == [f"{CHILD}-a"]
    leaving = decided(running(metadata={"deletionTimestamp": time("10:05:00")}), status={"jobName": CHILD})
    assert leaving.delete == ()


def test_pod_whose_end_was_seen_needs_no_check() -> None:
    found = decided(ended(code=75), status={"jobName": CHILD}, answers={(LOG, f"{CHILD}-a"): ""})
    assert (found.phase, found.reason) == ("Failed", "JobDeleted")


@pytest.mark.parametrize("case", [{"child": child()}, {"status": {}}], ids=["the Job exists", "none was created"])
def test_other_jobs_are_left_alone(case: dict[str, Any]) -> None:
    assert end_without_job(context(**{"status": STATUS, **case})) is None
