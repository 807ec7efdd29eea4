"""Jobs that another client suspended."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.trainingjob.builders import child, condition, context, running
from tests.unit.operator.trainingjob.state_model import merged
from trainyard_crds.constants import FIELD_MANAGER
from trainyard_kube.paths import Object
from trainyard_operator.trainingjob.policies.foreign_suspension import follow_foreign_suspension
from trainyard_operator.trainingjob.queue_adapter import TrainingJobCandidate

RUNNING: Object = {"phase": "Running"}
REPORTED: Object = {
    "phase": "Suspended",
    "conditions": [condition("Running", holds=False, reason="SuspendedByOther")],
}


def suspended(manager: str | None, *conditions: Object) -> Object:
    found: Object = merged(child(*conditions, suspend=True), {"metadata": {"suspendedBy": manager}})
    return found


def test_job_suspended_by_another_client_is_reported_and_stays_so() -> None:
    saving = follow_foreign_suspension(context(running(), child=suspended("kubectl-patch"), status=RUNNING))
    assert saving is not None
    assert (saving.phase, saving.reason, saving.suspend) == ("Suspending", "SuspendedByOther", None)
    later = context(running(), child=suspended("kubectl-patch"), status={"phase": "Suspending"})
    assert follow_foreign_suspension(later) == saving
    idle = context(child=suspended("kubectl-patch", condition("Suspended")), status=REPORTED)
    found = follow_foreign_suspension(idle)
    assert found is not None
    assert (found.phase, found.reason, found.suspend) == ("Suspended", "SuspendedByOther", None)
    assert "was suspended by kubectl-patch, not by this TrainingJob" in found.message
    assert not TrainingJobCandidate(idle.observed).is_wanted


@pytest.mark.parametrize(
    "case",
    [
        {"child": suspended(FIELD_MANAGER), "status": RUNNING},
        {"child": suspended(None), "status": RUNNING},
        {"child": child(), "status": RUNNING},
        {"child": suspended("kubectl-patch"), "status": {"phase": "Suspended"}},
        {"child": suspended("kubectl-patch"), "status": RUNNING, "spec": {"suspend": True}},
        {"child": None, "status": RUNNING},
    ],
    ids=["by the operator", "unknown", "not suspended", "suspended and resumed by the user", "by the user", "no Job"],
)
def test_other_jobs_are_left_alone(case: dict[str, Any]) -> None:
    assert follow_foreign_suspension(context(**case)) is None
