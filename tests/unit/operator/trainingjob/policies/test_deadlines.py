"""Limits of running time, of restarts without progress and of a start."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.trainingjob.builders import (
    GANG,
    attempt,
    child,
    condition,
    context,
    ended,
    report,
    running,
    time,
)
from trainyard_operator.reconcile.plan import LOG, Need
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policies.deadlines import (
    active_seconds_left,
    enforce_limits,
    seconds_of_all_starts,
    seconds_starting,
)

LIMIT = {"activeDeadlineSeconds": 600}
RAN = {
    "attempts": [attempt(startedAt=time("10:00:05"), finishedAt=time("10:08:25"))],
    "attemptCounts": {"total": 1, "runningSeconds": 500},
}


@pytest.mark.parametrize(
    ("pods", "status", "now", "left"),
    [
        ([running()], {}, "10:05:05", 300),
        ([running()], {}, "10:10:05", 0),
        ([], RAN, "11:00:00", 100),
        ([running("b", since="10:10:00")], RAN, "10:11:00", 40),
    ],
    ids=["running", "used up", "between attempts", "second attempt"],
)
def test_running_time_is_the_sum_of_the_attempts(
    pods: list[Any], status: dict[str, Any], now: str, left: float
) -> None:
    found = context(*pods, child=child(), spec=LIMIT, status=status, now=now, answers={("pods", "x"): None})
    assert active_seconds_left(found) == left
    assert active_seconds_left(context(*pods, child=child(), status=status, now=now)) is None


def test_job_past_its_deadline_saves_and_then_fails() -> None:
    found = enforce_limits(context(running(), child=child(), spec=LIMIT, now="10:10:05"))
    assert isinstance(found, Decision)
    assert (found.phase, found.reason, found.suspend) == ("Stopping", "DeadlineExceeded", True)
    assert found.message == "The job ran for 600 s (spec.activeDeadlineSeconds); it saves a checkpoint and stops."
    saved = ended(code=75, until="10:10:30", message=report("Interrupted", 75, step=40))
    idle = child(condition("Suspended"), suspend=True)
    found = enforce_limits(context(saved, child=idle, spec=LIMIT, now="10:10:40"))
    assert isinstance(found, Decision)
    assert (found.phase, found.reason) == ("Failed", "DeadlineExceeded")
    assert found.termination is not None
    assert found.termination.step == 40
    assert enforce_limits(context(running(), child=child(), spec=LIMIT, now="10:10:00")) is None


@pytest.mark.parametrize(("restarts", "fails"), [(4, False), (5, True)])
def test_restarts_without_progress_fail_the_job(restarts: int, fails: bool) -> None:
    recorded = attempt(finishedAt=time("10:05:00"), reason="Evicted", message="The pod was evicted.")
    counts = {"total": 1, "restartsWithoutProgress": restarts}
    seen = context(ended(code=75), child=child(), status={"attempts": [recorded], "attemptCounts": counts})
    found = enforce_limits(seen)
    if not fails:
        assert found is None
        return
    assert found == Need(LOG, "tune-5f8c1d2e-a", "trainer")
    answers = {(LOG, "tune-5f8c1d2e-a"): "the end"}
    seen = context(
        ended(code=75), child=child(), status={"attempts": [recorded], "attemptCounts": counts}, answers=answers
    )
    found = enforce_limits(seen)
    assert isinstance(found, Decision)
    assert (found.phase, found.reason, found.log_tail) == ("Failed", "NoProgress", "the end")
    assert "5 times in a row without a new training step. Last: The pod was evicted. Save more often" in found.message


@pytest.mark.parametrize(
    ("case", "seconds"),
    [
        ({}, None),
        ({"status": {"conditions": [condition("Admitted", since="10:09:00")]}}, 60),
        ({"status": {"conditions": [condition("Admitted", holds=False)]}}, None),
        ({"child": child()}, 600),
        ({"child": child(condition("Suspended"), suspend=True)}, None),
        ({"child": child(condition("Suspended", holds=False, since="10:08:00"))}, 120),
        ({"child": child(), "pods": [ended(until="10:09:50", code=75)]}, 10),
        ({"child": child(), "pods": [running("0-a"), running("1-a")], "spec": GANG}, 600),
        (
            {
                "child": child(),
                "spec": GANG,
                "status": {"conditions": [condition("Running", holds=False, since="10:07:00")]},
            },
            180,
        ),
        ({"child": child(), "spec": GANG, "status": {"conditions": [condition("Running")]}}, 0),
    ],
    ids=[
        "new",
        "admitted without Job",
        "waiting",
        "Job created",
        "suspended",
        "resumed",
        "attempt ended",
        "gang created",
        "gang stopped running",
        "gang runs",
    ],
)
def test_start_begins_with_the_last_event_that_caused_it(case: dict[str, Any], seconds: float | None) -> None:
    pods = case.pop("pods", [])
    found = context(*pods, **case)
    assert seconds_starting(found) == seconds


def test_failed_starts_count_against_the_start_deadline() -> None:
    status = {"queue": {"failedStarts": {"count": 1, "seconds": 300, "notBefore": time("10:00:00"), "message": "m"}}}
    assert seconds_of_all_starts(context(child=child(), status=status)) == 900
