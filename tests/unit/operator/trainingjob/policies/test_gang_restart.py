"""Gangs that lost a pod."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.trainingjob.builders import GANG, child, condition, context, ended, running
from tests.unit.operator.trainingjob.state_model import ADMITTED, CHILD
from trainyard_operator.reconcile.plan import Need
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policies.gang_restart import (
    report_broken_gang,
    restart_gang,
)

LOST_PEER = ended("1-a", 137, until="10:08:00")
LEADER = running("0-a")
RESTARTING = [condition("Running", holds=False, reason="GroupRestarts", message="Pod 1 was lost.")]


@pytest.mark.parametrize(
    ("now", "seconds"), [("10:08:05", 115.0), ("10:09:59", 1.0), ("10:10:00", 0.0)], ids=["early", "late", "hung"]
)
def test_gang_that_lost_a_pod_is_reported_and_stopped_when_it_hangs(now: str, seconds: float) -> None:
    seen = context(LEADER, LOST_PEER, child=child(), spec=GANG, now=now)
    reported = report_broken_gang(seen)
    assert reported is not None
    assert (reported.phase, reported.reason, reported.requeue_after) == ("Starting", "GroupRestarts", seconds)
    assert reported.message == (
        f"Pod {CHILD}-1-a on node n1: The container was ended by SIGKILL (exit code 137). "
        "The group starts again from the last checkpoint."
    )
    restarted = restart_gang(seen)
    assert (restarted is not None) is (seconds == 0)
    if restarted is not None:
        assert restarted.suspend
        assert f"{CHILD}-0-a did not end within 120 s of it. All pods are stopped." in restarted.message


@pytest.mark.parametrize(
    ("case", "suspends"),
    [
        ({"child": child(suspend=True), "status": {"conditions": RESTARTING}}, True),
        ({"child": child(condition("Suspended"), suspend=True), "status": {"conditions": RESTARTING}}, True),
        ({"child": child(suspend=True)}, False),
        ({"child": child(), "admission": {"preempted": True}}, False),
        ({"child": None}, False),
    ],
    ids=["pods end", "Job suspended, pods end", "suspended by the user", "preempted", "no Job"],
)
def test_suspended_gang_stays_suspended_until_its_pods_ended(case: dict[str, Any], suspends: bool) -> None:
    admission = ADMITTED._replace(**case.pop("admission", {}))
    found = restart_gang(context(LEADER, LOST_PEER, spec=GANG, admission=admission, **case))
    assert (found is not None) is suspends
    if found is not None:
        assert (found.suspend, found.message) == (True, "Pod 1 was lost.")


def test_idle_gang_starts_again() -> None:
    idle = child(condition("Suspended"), suspend=True)
    pods = (ended("0-a", 75), LOST_PEER)
    assert restart_gang(context(*pods, child=idle, spec=GANG, status={"conditions": RESTARTING})) is None


@pytest.mark.parametrize(
    "pods",
    [(LEADER, running("1-a")), (ended("0-a", 75), LOST_PEER)],
    ids=["all run", "all ended"],
)
def test_whole_gangs_are_left_alone(pods: tuple[Any, ...]) -> None:
    seen = context(*pods, child=child(), spec=GANG)
    assert restart_gang(seen) is None
    assert report_broken_gang(seen) is None


def test_jobs_on_one_node_are_left_alone() -> None:
    seen = context(running(), child=child())
    found: list[Decision | Need | None] = [restart_gang(seen), report_broken_gang(seen)]
    assert found == [None, None]
