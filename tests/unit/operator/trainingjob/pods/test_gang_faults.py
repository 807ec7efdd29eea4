"""The pod at fault when a gang ends, and pods that are left; times are seconds of a minute."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.trainingjob.state_model import at, merged, new_pod
from trainyard_operator.trainingjob.pods.gang_faults import (
    fault_of,
    gang_of,
    is_recorded,
    pod_at_fault,
    seconds_to_await_fault,
)
from trainyard_operator.trainingjob.pods.pod_termination import ContainerMemory

Object = dict[str, Any]
MEMORY = ContainerMemory("8Gi", ("optimization.batchSize",))


def clock(second: int) -> str:
    return f"2026-01-02T10:00:{second:02d}Z"


def ran(name: str, started: int, ended: int | None = None, code: int = 0, **change: Any) -> Object:
    """A pod whose container started, and ended where a code is given."""
    pod = new_pod(name, clock(max(0, started - 1)))
    if ended is None:
        state: Object = {"running": {"startedAt": clock(started)}}
        phase = "Running"
    else:
        times = {"startedAt": clock(started), "finishedAt": clock(ended)}
        state, phase = {"terminated": {"exitCode": code, **times}}, "Failed" if code else "Succeeded"
    status = {"phase": phase, "containerStatuses": [{"name": "trainer", "state": state}]}
    found: Object = merged(merged(pod, {"status": status}), change)
    return found


def disrupted(second: int) -> Object:
    entry = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    return {"status": {"conditions": [{**entry, "lastTransitionTime": clock(second)}]}}


def asked(second: int, grace: int = 5) -> Object:
    return {"metadata": {"deletionTimestamp": clock(second + grace), "deletionGracePeriodSeconds": grace}}


EVICTED = {**disrupted(20), **asked(20)}


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        (ran("1-a", 1), None),
        (ran("1-a", 1, 9, 0), None),
        (ran("1-a", 1, 9, 75), None),
        (ran("1-a", 1, 9, 76), None),
        (ran("1-a", 1, 9, 70), "InternalError"),
        (ran("1-a", 1, 9, 65), "BadData"),
        (ran("1-a", 1, 9, 137), "Signal9"),
        (ran("1-a", 1, 9, 137, **asked(8)), None),
        (ran("1-a", 1, 9, 70, **asked(12)), "InternalError"),
        (ran("1-a", 1, 25, 75, **EVICTED), "Evicted"),
        (ran("1-a", 1, **EVICTED), "Evicted"),
        (ran("1-a", 1, 25, 0, **EVICTED), None),
        (ran("1-a", 1, **asked(20)), None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_fault_of_a_pod(pod: Object, reason: str | None) -> None:
    found = fault_of(pod, MEMORY)
    assert (found and found.ending.reason) == reason


LEADER = ran("0-a", 1, 30, 76)


@pytest.mark.parametrize(
    ("leader", "peers", "since", "blamed"),
    [
        (LEADER, [ran("1-a", 1, 29, 70)], None, "1-a"),
        (LEADER, [ran("1-a", 1, 29, 70), ran("2-a", 1, 27, 137)], None, "2-a"),
        (LEADER, [ran("1-a", 1, 29, 70), ran("2-a", 1, 27, 76)], None, "1-a"),
        (LEADER, [ran("1-a", 1, 27, 70), ran("2-a", 1, 29, 65)], None, "2-a"),
        (LEADER, [ran("1-a", 1, 38, 70)], None, "1-a"),
        (LEADER, [ran("1-a", 1, 45, 70)], None, None),
        (LEADER, [ran("1-b", 35, 38, 70)], None, None),
        (LEADER, [ran("1-a", 1)], None, None),
        (LEADER, [], None, None),
        (ran("0-b", 20, 50, 76), [ran("1-a", 1, 13, 70), ran("1-b", 20, 49, 137)], "10", "1-b"),
        (ran("0-b", 20, 50, 76), [ran("1-b", 9, 49, 137)], "10", "1-b"),
        (ran("0-a", 1, 30, 70), [ran("1-a", 1, 30, 70)], None, None),
        (ran("0-a", 1, 30, 70), [ran("1-a", 1, 29, 70)], None, "1-a"),
        (ran("0-a", 1, 30, 65), [ran("1-a", 1, 29, 70)], None, None),
        (ran("0-a", 1, 30, 0), [ran("1-a", 1, 29, 70)], None, None),
        (ran("0-a", 1, 30, 75), [ran("1-a", 1, 29, 75, **EVICTED)], None, "1-a"),
        (ran("0-a", 1, 30, 75, **EVICTED), [ran("1-a", 1, 29, 76)], None, None),
        (ran("0-a", 1), [ran("1-a", 1, 29, 70)], None, "1-a"),
    ],
)
def test_first_fault_is_the_cause_and_a_fatal_one_before_all(
    leader: Object, peers: list[Object], since: str | None, blamed: str | None
) -> None:
    found = pod_at_fault(leader, [leader, *peers], at(f"10:00:{since}") if since else None, MEMORY)
    assert (found and found.pod["metadata"]["uid"]) == (blamed and f"pod-{blamed}")


@pytest.mark.parametrize(
    ("pods", "left", "complete"),
    [
        ([ran("0-a", 1), ran("1-a", 1)], [], True),
        ([ran("0-a", 1)], [], False),
        ([ran("0-a", 1), new_pod("1-a", clock(1))], [], False),
        ([ran("0-a", 1), ran("1-a", 1, 9, 0)], [], True),
        ([ran("0-a", 1), ran("1-a", 1, 9, 0, status={"phase": "Running"})], [], True),
        ([ran("0-a", 1), ran("1-a", 1, 9, 70)], ["0-a"], False),
        ([ran("0-a", 1), ran("1-a", 1, 9, 70), ran("1-b", 20)], ["0-a"], False),
        ([ran("0-a", 1), ran("1-a", 1, **asked(9))], ["0-a"], False),
        ([ran("0-a", 1, **asked(9)), ran("1-a", 1, **asked(9))], [], False),
        # Started again before the first one ended of the same cause: not part of the gang that broke.
        ([ran("0-a", 1, 25, 76), ran("0-b", 40), ran("1-a", 1, 9, 70), ran("1-b", 20)], [], True),
        # A second break after that.
        ([ran("0-a", 1, 25, 76), ran("0-b", 40), ran("1-a", 1, 9, 70), ran("1-b", 20, 50, 70)], ["0-b"], False),
    ],
)
def test_pods_that_started_before_the_break_are_left(pods: list[Object], left: list[str], complete: bool) -> None:
    found = gang_of(pods, [], 2)
    assert found is not None
    assert [pod["metadata"]["uid"] for pod in found.left] == [f"pod-{name}" for name in left]
    assert found.complete is complete


def test_recorded_leader_breaks_its_gang() -> None:
    entry = {"number": 1, "podUID": "gone", "startedAt": clock(1), "finishedAt": clock(9)}
    found = gang_of([ran("1-a", 1), ran("0-b", 20)], [entry], 2)
    assert found is not None
    assert [pod["metadata"]["uid"] for pod in found.left] == ["pod-1-a"]


def test_job_on_one_node_is_no_gang() -> None:
    assert gang_of([ran("a", 1)], [], 1) is None


@pytest.mark.parametrize(("second", "seconds"), [(31, 9.0), (39, 1.0), (40, None)])
def test_cause_is_awaited_for_ten_seconds(second: int, seconds: float | None) -> None:
    assert seconds_to_await_fault(LEADER, MEMORY, at(f"10:00:{second}")) == seconds


def test_cause_of_an_explained_end_is_not_awaited() -> None:
    assert seconds_to_await_fault(ran("0-a", 1, 30, 70), MEMORY, at("10:00:31")) is None
    assert seconds_to_await_fault(ran("0-a", 1, 30, 76, **EVICTED), MEMORY, at("10:00:31")) is None


def test_pod_is_recorded_with_its_attempt() -> None:
    recorded: Object = {"attempts": [{"podUID": "pod-0-a", "finishedAt": clock(9)}]}
    running: Object = {"attempts": [{"podUID": "pod-0-a"}]}
    assert is_recorded(ran("1-a", 1, 9, 70), recorded)
    assert not is_recorded(ran("1-a", 1, 9, 70), running)
    assert is_recorded(ran("0-a", 1, 9, 70), recorded)
    assert not is_recorded(ran("0-b", 1, 9, 70), recorded), "another leader has its own entry"
