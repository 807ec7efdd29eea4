"""The limit of faults that the operator enforces beside the Job controller."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.trainingjob.builders import GANG, attempt, child, context, ended, running, time
from tests.unit.operator.trainingjob.state_model import CHILD
from trainyard_operator.reconcile.plan import LOG, Need
from trainyard_operator.trainingjob.policies.retry_limit import enforce_retry_limit

EVICTED: Any = {"status": {"reason": "Evicted", "message": 'Usage of EmptyDir volume "tmp" exceeds the limit "10Gi".'}}


@pytest.mark.parametrize(
    ("failed", "limit", "end", "decision"),
    [
        (3, 3, ended("0-a", 70), None),
        (4, 3, ended("0-a", 70), "InternalError"),
        (1, 0, ended("0-a", 70), "InternalError"),
        (4, 3, ended("0-a", 75), None),
        (4, 3, running("0-a"), None),
    ],
    ids=["within the limit", "above the limit", "limit 0", "free restart", "running"],
)
def test_faults_of_a_gang_count_against_the_retry_limit(
    failed: int, limit: int, end: Any, decision: str | None
) -> None:
    status = {
        "attempts": [attempt(name="0-a", finishedAt=time("10:05:00"), startedAt=time("10:00:05"))],
        "attemptCounts": {"total": 1, "failed": failed},
    }
    spec = {**GANG, "retry": {"limit": limit}}
    answers = {(LOG, f"{CHILD}-0-a"): "the end"}
    found = enforce_retry_limit(context(end, child=child(), spec=spec, status=status, answers=answers))
    assert not isinstance(found, Need)
    assert (found and found.reason) == decision
    if found is not None:
        assert found.message.endswith(f"Attempts that count as faults: {failed}, spec.retry.limit: {limit}.")
        assert (found.phase, found.log_tail) == ("Failed", "the end")
    assert enforce_retry_limit(context(ended("a", 70), child=child(), status=status)) is None


@pytest.mark.parametrize(
    ("code", "failed", "fails"),
    [(75, 3, True), (75, 2, False), (137, 3, False)],
    ids=["saved in time", "within the limit", "killed: the Job controller counts it"],
)
def test_eviction_for_the_pods_own_use_is_no_free_restart(code: int, failed: int, fails: bool) -> None:
    evicted = ended("a", code, **EVICTED)
    status = {"attempts": [attempt()], "attemptCounts": {"total": 1, "failed": failed}}
    found = enforce_retry_limit(
        context(evicted, child=child(), status=status, answers={(LOG, f"{CHILD}-a"): "the end"})
    )
    assert not isinstance(found, Need)
    assert (found is not None) is fails
    if found is not None:
        assert (found.phase, found.reason) == ("Failed", "EvictedByKubelet")
        assert 'Usage of EmptyDir volume "tmp" exceeds the limit "10Gi".' in found.message
        assert "Raise spec.resources.tmpSize." in found.message
