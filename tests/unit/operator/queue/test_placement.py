from __future__ import annotations

from itertools import combinations_with_replacement

from hypothesis import given
from hypothesis import strategies as st

from trainyard_operator.queue.placement import place, reserve_anywhere, reserve_planned

FREE = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 8), max_size=4)


@given(FREE, st.integers(1, 8), st.integers(1, 4))
def test_gang_is_placed_if_and_only_if_it_fits(free: dict[str, int], gpus: int, nodes: int) -> None:
    found = place(dict(free), gpus=gpus, nodes=nodes)
    tries = combinations_with_replacement(sorted(free), nodes)
    possible = any(all(one.count(node) * gpus <= free[node] for node in free) for one in tries)
    assert (found is not None) == possible
    if found is not None:
        assert len(found) == nodes
        assert all(found.count(node) * gpus <= free[node] for node in found)


def test_best_fit_keeps_whole_nodes_free() -> None:
    assert place({"a": 8, "b": 3, "c": 2}, gpus=2, nodes=1) == ("c",)
    assert place({"a": 8, "b": 3, "c": 2}, gpus=2, nodes=2) == ("b", "c")


@given(FREE, st.lists(st.sampled_from("abcdx"), max_size=3), st.integers(1, 4))
def test_reserve_takes_no_more_than_is_free(free: dict[str, int], planned: list[str], gpus: int) -> None:
    left = dict(free)
    reserve_anywhere(left, reserve_planned(left, planned, gpus), gpus)
    assert all(0 <= left[node] <= free[node] for node in free)
    held = sum(free.values()) - sum(left.values())
    assert held == gpus * min(len(planned), sum(count // gpus for count in free.values())) or held % gpus == 0
