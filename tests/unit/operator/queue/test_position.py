from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.queue.state_model import make_request
from trainyard_operator.queue.pool import Pool
from trainyard_operator.queue.position import EXACT_POSITIONS, QueuePosition, positions, rounded


@pytest.mark.parametrize(
    ("count", "shown"),
    [(1, 1), (20, 20), (21, 30), (30, 30), (31, 40), (100, 100), (101, 150), (500, 500), (501, 600), (9999, 10000)],
)
def test_positions_are_exact_near_the_head_and_rounded_up_behind(count: int, shown: int) -> None:
    assert rounded(count) == shown


@given(st.integers(1, 100_000))
def test_rounding_never_decreases_and_is_idempotent(count: int) -> None:
    assert rounded(count) >= count
    assert rounded(rounded(count)) == rounded(count)
    assert rounded(count + 1) >= rounded(count)


def test_positions_count_per_pool() -> None:
    other = Pool("nvidia.com/mig-1g.10gb")
    found = positions([make_request("a"), make_request("m", pool=other), make_request("b")])
    assert found == {"a": QueuePosition(1, 2), "m": QueuePosition(1, 1), "b": QueuePosition(2, 2)}


def test_start_at_the_head_changes_few_positions() -> None:
    waiting = [make_request(f"j{i}") for i in range(1000)]
    before, after = positions(waiting), positions(waiting[1:])
    moved = [uid for uid, place in after.items() if place.position != before[uid].position]
    assert len(moved) <= EXACT_POSITIONS + 30
