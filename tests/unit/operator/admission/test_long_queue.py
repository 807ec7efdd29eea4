"""Cycles over 10,000 waiting jobs on 64 nodes. Work is counted; `benchmarks.queue --only pass` measures time."""

from __future__ import annotations

import tracemalloc

import pytest

from tests.queueing.queue_fixture import QueueFixture, long_queue
from trainyard_operator.queue import estimate, free_capacity, placement
from trainyard_operator.queue.position import EXACT_POSITIONS

WAITING, NODES = 10_000, 64
RUNNING = NODES * 8


@pytest.fixture(scope="module")
def full() -> QueueFixture:
    return long_queue(WAITING, NODES)


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the attempts to place a gang."""
    counted: list[int] = []

    def place(free: dict[str, int], *, gpus: int, nodes: int) -> tuple[str, ...] | None:
        counted.append(gpus)
        return placement.place(free, gpus=gpus, nodes=nodes)

    monkeypatch.setattr(free_capacity, "place", place)
    monkeypatch.setattr(estimate, "place", place)
    return counted


def test_status_updates_are_rate_limited(full: QueueFixture) -> None:
    assert sum(name.startswith("waiting") for name in full.added) >= WAITING
    full.added.clear()
    for _ in range(10):
        full.cycle(0.01)
    assert full.added == [], "nothing changed, so nothing is published"
    full.end("running-0")
    full.cycle(60)
    started = [name for name in full.added if full.decision(name).admitted]
    assert len(full.added) - len(started) <= 10, "at most ten a second over all jobs, with a burst of one second"


def test_cycle_tries_few_placements(full: QueueFixture, tries: list[int]) -> None:
    full.cycle(1)
    assert len(tries) <= 1 + RUNNING + 2 * estimate.DEPTH, "the head, and the front of the queue once per end"


def test_start_at_the_head_updates_few_statuses(full: QueueFixture) -> None:
    full.cycle(60)
    full.added.clear()
    full.end("running-1")
    full.cycle(0.1)
    assert len(full.added) <= 1 + EXACT_POSITIONS + 10


@pytest.mark.slow
def test_cycle_uses_little_memory_and_keeps_none(full: QueueFixture) -> None:
    full.cycle(60)
    tracemalloc.start()
    try:
        full.cycle(0.01)
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(3):
            full.cycle(0.01)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - kept < 8 * 2**20, "bytes of one cycle over 10,000"
    assert after - kept < 2**18, "bytes that three cycles leave behind"
