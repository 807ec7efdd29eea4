"""Gangs in a namespace that is being deleted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.trainingjob.builders import GANG, TRACKED, child, context, ended, report, running, time
from tests.unit.operator.trainingjob.state_model import NAMESPACE
from trainyard_operator.reconcile.plan import TERMINATING, Need
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policies.namespace_termination import awaits_replacements, end_with_namespace

GONE = {**TRACKED, "deletionTimestamp": time("10:05:00"), "deletionGracePeriodSeconds": 120}
PODS = (
    ended("0-a", 75, message=report("Interrupted", 75, step=40), metadata=GONE),
    ended("1-a", 75, metadata=GONE),
)


def test_namespace_is_looked_up_while_pods_await_replacements() -> None:
    seen = context(*PODS, child=child(), spec=GANG)
    assert end_with_namespace(seen) == Need(TERMINATING, NAMESPACE)
    assert (
        end_with_namespace(context(*PODS, child=child(), spec=GANG, answers={(TERMINATING, NAMESPACE): False})) is None
    )


def test_job_ends_with_its_namespace() -> None:
    found = end_with_namespace(context(*PODS, child=child(), spec=GANG, answers={(TERMINATING, NAMESPACE): True}))
    assert isinstance(found, Decision)
    assert (found.phase, found.reason) == ("Stopped", "NamespaceDeleted")
    assert found.message == "The namespace team is being deleted, and the job with it."
    assert found.termination is not None
    assert found.termination.step == 40


@pytest.mark.parametrize(
    ("pods", "case"),
    [
        (PODS, {"child": child()}),
        (PODS, {"spec": GANG}),
        ((), {"child": child(), "spec": GANG}),
        ((PODS[0], running("1-a")), {"child": child(), "spec": GANG}),
        ((PODS[0], ended("1-a", 75)), {"child": child(), "spec": GANG}),
        (tuple({**pod, "gone": True} for pod in PODS), {"child": child(), "spec": GANG}),
    ],
    ids=["one node", "no Job", "no pods", "a pod runs", "a pod without finalizer", "pods are gone"],
)
def test_other_jobs_are_left_alone(pods: tuple[Any, ...], case: dict[str, Any]) -> None:
    seen = context(*pods, **case)
    assert not awaits_replacements(seen)
    assert end_with_namespace(seen) is None
