"""A pass over 10,000 waiting jobs on 64 nodes. Work is counted, not timed: `benchmarks.queue --only pass` does that."""

from __future__ import annotations

import tracemalloc

import pytest

from tests.unit.operator.admission.queue_fixture import Yard
from tests.unit.operator.queue.state_model import GPU
from trainyard_operator.queue import estimate, free_capacity, placement
from trainyard_operator.queue.pool import Node
from trainyard_operator.queue.position import EXACT

WAITING, NODES = 10_000, 64
RUNNING = NODES * 8


@pytest.fixture(scope="module")
def full() -> Yard:
    return long_queue(WAITING, NODES)


def long_queue(waiting: int, nodes: int) -> Yard:
    """All GPUs are taken, and jobs of three sizes wait; each was told once that it does."""
    yard = Yard(8)
    for number in range(1, nodes):
        yard.queue.inventory.put_node(Node(name=f"n{number}", allocatable={GPU: 8}))
    for number in range(nodes * 8):
        yard.submit(f"running-{number}")
    yard.round()
    for number in range(nodes * 8):
        yard.start_on(f"running-{number}", f"n{number // 8}")
    for number in range(waiting):
        yard.submit(f"waiting-{number:05}", (1, 2, 8)[number % 3], priority=(1, 5, 9)[number % 7 % 3])
    yard.round(1)
    return yard


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts how often a place is looked for."""
    counted: list[int] = []

    def place(free: dict[str, int], *, gpus: int, nodes: int) -> tuple[str, ...] | None:
        counted.append(gpus)
        return placement.place(free, gpus=gpus, nodes=nodes)

    monkeypatch.setattr(free_capacity, "place", place)
    monkeypatch.setattr(estimate, "place", place)
    return counted


def test_every_job_is_told_once_and_then_only_as_the_rate_allows(full: Yard) -> None:
    assert sum(name.startswith("waiting") for name in full.added) >= WAITING
    full.added.clear()
    for _ in range(10):
        full.round(0.01)
    assert full.added == [], "nothing happened, so nothing is told"
    full.end("running-0")
    full.round(60)
    started = [name for name in full.added if full.answer(name).admitted]
    assert len(full.added) - len(started) <= 10, "ten a second at most, over all jobs, and no more are saved up"


def test_a_pass_looks_for_a_place_for_few(full: Yard, tries: list[int]) -> None:
    full.round(1)
    assert len(tries) <= 1 + RUNNING + 2 * estimate.DEPTH, "the head, and the front of the line once for each end"


def test_a_start_at_the_head_moves_what_few_were_told(full: Yard) -> None:
    full.round(60)
    full.added.clear()
    full.end("running-1")
    full.round(0.1)
    assert len(full.added) <= 1 + EXACT + 10


@pytest.mark.slow
def test_a_pass_takes_little_memory_and_keeps_none(full: Yard) -> None:
    full.round(60)
    tracemalloc.start()
    try:
        full.round(0.01)
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(3):
            full.round(0.01)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - kept < 8 * 2**20, "bytes of one pass over 10,000"
    assert after - kept < 2**18, "bytes that three passes left behind"
