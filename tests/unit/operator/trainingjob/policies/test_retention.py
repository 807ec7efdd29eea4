"""Finished TrainingJobs are deleted after the administrator's time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.operator.trainingjob.state_model import NAME, SETTINGS, UID, at, merged, new_job, observed_of
from trainyard_operator.reconcile.plan import Deletion, Plan
from trainyard_operator.trainingjob.model import Observed
from trainyard_operator.trainingjob.plan import plan
from trainyard_operator.trainingjob.policies.retention import expire

HOUR = replace(SETTINGS, retention_seconds=3600)
END, BEFORE, AFTER = at("11:00"), at("11:59"), at("12:00")
DELETED = Plan(delete=(Deletion("trainingjobs", NAME, UID),))


def finished(phase: str = "Succeeded", **status: Any) -> Observed:
    end = {"phase": phase, "completionTime": END.strftime("%Y-%m-%dT%H:%M:%SZ")}
    return observed_of(merged(new_job(), {"status": {**end, **status}}))


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Stopped"])
def test_finished_job_is_deleted_after_the_time(phase: str) -> None:
    assert plan(finished(phase), HOUR, BEFORE) == Plan(requeue_after=60)
    assert plan(finished(phase), HOUR, AFTER) == DELETED


def test_finished_jobs_are_kept_by_default() -> None:
    assert plan(finished(), SETTINGS, AFTER) == Plan()


def test_unfinished_job_is_never_deleted() -> None:
    running = observed_of(merged(new_job(), {"status": {"phase": "Running"}}))
    assert not plan(running, HOUR, AFTER).delete


def test_export_that_is_being_made_is_awaited() -> None:
    making = finished(exports=[{"format": "gguf", "state": "Running"}])
    assert expire(making, HOUR, AFTER, Plan(requeue_after=5)) == Plan(requeue_after=5)
    assert expire(finished(), HOUR, AFTER, Plan(status={"exports": []})) == Plan(status={"exports": []})


def test_earlier_time_of_the_rest_of_the_plan_is_kept() -> None:
    assert expire(finished(), HOUR, BEFORE, Plan(requeue_after=5)).requeue_after == 5
