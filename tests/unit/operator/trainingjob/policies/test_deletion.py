"""Deleted TrainingJobs that a finalizer keeps."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.trainingjob.builders import child, context, running, time
from tests.unit.operator.trainingjob.state_model import CHILD, SETTINGS, at, merged, new_job, observed_of
from trainyard_kube.paths import Object
from trainyard_operator.trainingjob.plan import plan
from trainyard_operator.trainingjob.policies.deletion import end_deleted


def deleted(*finalizers: str) -> Object:
    found: Object = merged(
        new_job(), {"metadata": {"deletionTimestamp": time("10:05:00"), "finalizers": list(finalizers)}}
    )
    return found


def test_job_of_a_deleted_training_job_is_deleted_though_a_finalizer_keeps_it() -> None:
    observed = observed_of(deleted("example.com/audit"), child=child(), pods=(running(),))
    found = plan(observed, SETTINGS, at("10:05:01"))
    assert [(each.kind, each.name) for each in found.delete] == [("jobs", CHILD)]
    assert found.status is not None
    assert (found.status["phase"], "example.com/audit" in found.status["message"]) == ("Stopping", True)


def test_deleted_job_is_stopped_once_nothing_is_left() -> None:
    found = plan(observed_of(deleted("example.com/audit")), SETTINGS, at("10:05:01"))
    assert found.status is not None
    assert found.status["phase"] == "Stopped"
    assert "finalizers are removed: example.com/audit" in found.status["message"]


@pytest.mark.parametrize("finalizers", [[], ["foregroundDeletion"], ["orphan", "example.com/audit"]])
def test_garbage_collector_decides_about_the_children_where_it_is_asked(finalizers: list[str]) -> None:
    found = plan(observed_of(deleted(*finalizers), child=child(), pods=(running(),)), SETTINGS, at("10:05:01"))
    assert (found.delete, found.status) == ((), None)


def test_other_jobs_are_left_alone() -> None:
    values: dict[str, Any] = {"child": child()}
    assert end_deleted(context(running(), **values)) is None
