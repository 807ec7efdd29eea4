"""The campaign's checks on artificial histories: each finds its violation and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.queueing import checks, simulate, status_history
from tests.queueing.history import Change, Job, Node, Pod, TrainingJob
from tests.queueing.replicas import Write, turns
from trainyard_operator.queue.models import Request
from trainyard_operator.queue.pool import Pool


def at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def node(name: str = "n0", gpus: int = 8, *, open_: bool = True, now: float = 0.0) -> Node:
    return Node(rv=0, at=now, uid=name, name=name, gpus=gpus, open=open_)


def wanted(name: str, gpus: int = 8, now: float = 0.0, **more: Any) -> TrainingJob:
    known = TrainingJob(
        rv=0, at=now, uid=name, name=name, priority=5, gpus=gpus, nodes=1, phase="", stamp=at(now), selector="{}"
    )
    return replace(known, **more)


def admitted_job(name: str, now: float, **more: Any) -> Job:
    known = Job(rv=0, at=now, uid=f"job-{name}", name=name, job=name, admitted=at(now), suspended=False, ended=False)
    return replace(known, **more)


def pod(name: str, now: float, phase: str = "Running", gpus: int = 8, *, job: str | None = None) -> Pod:
    owner = name if job is None else job
    return Pod(rv=0, at=now, uid=f"pod-{name}", name=name, node="n0", phase=phase, gpus=gpus, job=owner)


def life(name: str, now: float, gpus: int = 8) -> list[Change]:
    """All changes of one job."""
    return [
        wanted(name, gpus, now),
        admitted_job(name, now + 1),
        pod(name, now + 2, gpus=gpus),
        pod(name, now + 5, "Succeeded", gpus=gpus),
        admitted_job(name, now + 1, ended=True),
        wanted(name, gpus, now, phase="Succeeded"),
    ]


GOOD: list[Change] = [node(), *life("a", 10), *life("b", 20)]
EARLY: list[Change] = [node(), wanted("a"), wanted("b", now=1), admitted_job("a", 2), admitted_job("b", 3)]


@pytest.mark.parametrize(
    "check",
    [checks.overfull_nodes, checks.over_admissions, checks.ends, checks.pods_more_than_one, checks.passed_over],
)
def test_valid_history_has_no_findings(check: Callable[[list[Change]], list[str]]) -> None:
    assert check(GOOD) == []


def test_overfull_node_is_found() -> None:
    assert checks.overfull_nodes([node(), pod("a", 1), pod("b", 2, gpus=1)]) == ["b made it 9 of 8 GPUs on n0"]


def test_over_admission_beside_an_unbound_pod_is_found() -> None:
    assert len(checks.over_admissions(EARLY)) == 1
    assert checks.over_admissions([*EARLY[:-1], pod("a", 3), pod("a", 4, "Succeeded"), admitted_job("b", 5)]) == []
    assert len(checks.over_admissions([*EARLY[:-1], pod("a", 3), admitted_job("b", 5)])) == 1


def test_admission_on_a_cordoned_node_is_tolerated_briefly() -> None:
    cordoned = [node(), wanted("a"), node(open_=False, now=5)]
    assert checks.over_admissions([*cordoned, admitted_job("a", 6)], lag=2) == []
    assert len(checks.over_admissions([*cordoned, admitted_job("a", 8)], lag=2)) == 1
    assert len(checks.over_admissions([*cordoned, admitted_job("a", 6)])) == 1


def test_a_foreign_pod_counts() -> None:
    foreign = pod("foreign", 1, gpus=1, job="")
    assert len(checks.over_admissions([node(), foreign, wanted("a"), admitted_job("a", 2)])) == 1


def test_wrong_ends_are_found() -> None:
    again = wanted("a", phase="Failed")
    assert checks.ends([*life("a", 0), again]) == ["a was Succeeded and became Failed", "a ended as Failed: "]
    other = replace(admitted_job("a", 3), uid="job-2")
    assert checks.ends([*life("a", 0), other]) == ["a had 2 Jobs"]
    assert checks.ends([wanted("a"), admitted_job("a", 1)]) == ["a ended as nothing: "]


def test_second_pod_is_found_unless_the_test_killed_the_first() -> None:
    twice = [*life("a", 0), replace(pod("a", 9), uid="second")]
    assert checks.pods_more_than_one(twice) == ["a had 2 pods for 1 nodes"]
    assert checks.pods_more_than_one(twice, killed=["second"]) == []


def test_overtaking_is_found_unless_a_kill_explains_it() -> None:
    history = [wanted("a"), wanted("b", now=1), admitted_job("b", 10), admitted_job("a", 12)]
    found = checks.overtakes(history)
    assert checks.unexplained(found) == ["b was admitted before a"]
    assert checks.unexplained(found, [11.0]) == []
    assert checks.unexplained(found, [13.0]) == ["b was admitted before a"]
    assert checks.overtakes([*history, wanted("a", reason="ExceedsCapacity")]) == []


def test_priority_inversion_is_found() -> None:
    high = wanted("high", priority=9, now=0)
    history = [high, wanted("low", priority=1, now=1), admitted_job("low", 10), admitted_job("high", 12)]
    assert checks.passed_over(history) == ["low passed high of higher priority"]
    assert checks.passed_over([wanted("low", priority=1), replace(high, at=9.5), *history[2:]]) == []


def test_positions_and_estimates_are_compared_with_the_facts() -> None:
    line: list[Change] = [wanted(name, now=number) for number, name in enumerate("abc")]
    ends: list[Change] = [admitted_job(name, 100 + 10 * number) for number, name in enumerate("abc")]
    published: dict[str, Any] = {"estimate": at(130), "basis": "history"}
    true = wanted("c", now=50, stamp=at(2), position=3, **published)
    found = status_history.positions([*line, true, *ends])
    assert (found.exact, found.wrong) == (1, [])
    false = replace(true, position=1)
    assert status_history.positions([*line, false, *ends]).wrong == ["c reported position 1, and was between 3 and 3"]
    [estimate] = status_history.estimates([*line, true, *ends])
    assert (estimate.basis, estimate.ahead, estimate.error) == ("history", 70, -10)


def test_simulation_matches_a_manual_calculation() -> None:
    """One node of 8: the large job waits for both small ones, and the last waits behind it although it would fit."""
    hand_over = simulate.HandOver(start=1, run=3, end=1, held=5)
    epoch = datetime(2026, 1, 1, tzinfo=UTC)
    jobs = [
        (0.0, Request(uid=uid, namespace="t", pool=Pool("nvidia.com/gpu"), gpus=gpus, priority=5, enqueued_at=epoch))
        for uid, gpus in (("a", 1), ("b", 1), ("c", 8), ("d", 1))
    ]
    ran = simulate.run(jobs, {"n0": 8}, hand_over)
    assert [(job.gpus, job.admitted, job.running, job.ended) for job in ran] == [
        (1, 0, 1, 4),
        (1, 0, 1, 4),
        (8, 5, 6, 9),
        (1, 10, 11, 14),
    ]
    use, long = simulate.use_while_long(ran, 8)
    assert (use, long) == (2 * 3 / 5 / 8, 5), "9 GPUs are requested until the large job is admitted"


def test_write_of_a_former_leader_is_found() -> None:
    found = [Write(at=str(number), token=token, what="patch pods/a") for number, token in enumerate("aabba")]
    assert turns(found) == ["a", "b", "a"]
