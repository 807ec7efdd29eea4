from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.operator.queue.state_model import NOW, hold, make_admitted, make_request, nodes
from trainyard_operator.queue.admission_cycle import Outcome, admit
from trainyard_operator.queue.inventory import Inventory
from trainyard_operator.queue.models import Admitted, Request
from trainyard_operator.queue.policy import Policy

PREEMPT = Policy(preemption=True)


def full(*jobs: tuple[str, int, int, float]) -> tuple[Inventory, list[Admitted]]:
    """One node of 8 with running jobs: name, GPUs, priority, admitted at."""
    inventory = nodes(8)
    for name, gpus, _, _ in jobs:
        hold(inventory, f"pod-{name}", "n0", gpus, job=name)
    return inventory, [
        make_admitted(make_request(name, gpus, priority=p), "n0", admitted_at=at) for name, gpus, p, at in jobs
    ]


def decide(head: Request, *jobs: tuple[str, int, int, float]) -> Outcome:
    inventory, running = full(*jobs)
    return admit([head], running, inventory, PREEMPT, NOW)


def test_lowest_and_youngest_job_is_preempted_first() -> None:
    found = decide(make_request("head", 2, priority=9), ("old", 2, 1, 0), ("young", 2, 1, 50), ("mid", 4, 5, 0))
    assert found.preempt == ["young"]
    assert found.reasons["head"].message == "One job of lower priority saves and frees its GPUs."


def test_equal_priority_is_not_preempted() -> None:
    found = decide(make_request("head", 2, priority=5), ("a", 8, 5, 0))
    assert not found.preempt
    assert found.reasons["head"].code == "WaitingForGpus"


def test_no_job_is_preempted_if_that_would_not_suffice() -> None:
    assert decide(make_request("head", 8, priority=5), ("low", 4, 1, 0), ("high", 4, 9, 0)).preempt == []


def test_superfluous_victim_is_spared() -> None:
    found = decide(make_request("head", 4, priority=9), ("small", 1, 1, 0), ("large", 4, 2, 0), ("rest", 3, 9, 0))
    assert found.preempt == ["large"]


def test_next_cycle_waits_for_releasing_jobs() -> None:
    inventory, _ = full(("a", 8, 1, 0))
    leaving = make_admitted(make_request("a", 8, priority=1), "n0", releasing=True)
    found = admit([make_request("head", 8, priority=9)], [leaving], inventory, PREEMPT, NOW)
    assert not found.preempt
    assert found.reasons["head"] == ("WaitingForPreempted", "Jobs that are stopping free enough GPUs.")


JOBS = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), min_size=1, max_size=5)


@given(JOBS, st.integers(1, 8), st.integers(0, 4))
@settings(max_examples=120)
def test_preemption_matches_exhaustive_search(jobs: list[tuple[int, int]], gpus: int, priority: int) -> None:
    inventory, running, left = nodes(8), list[Admitted](), 8
    for number, (count, own) in enumerate(jobs):
        if count <= left:
            left -= count
            hold(inventory, f"pod{number}", "n0", count, job=f"j{number}")
            running.append(make_admitted(make_request(f"j{number}", count, priority=own), "n0", admitted_at=number))
    found = admit([make_request("head", gpus, priority=priority)], running, inventory, PREEMPT, NOW)
    lower = {job.request.uid: job.request.gpus for job in running if job.request.priority < priority}
    ways = [set(way) for size in range(len(lower) + 1) for way in combinations(lower, size)]
    ways = [way for way in ways if left + sum(lower[uid] for uid in way) >= gpus]
    chosen = set(found.preempt)
    if gpus <= left or not ways:
        assert not chosen
    else:
        assert chosen in ways
        assert not any(way < chosen for way in ways), "no victim is superfluous"
