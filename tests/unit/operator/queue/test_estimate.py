from __future__ import annotations

from dataclasses import replace

from tests.unit.operator.queue.state_model import hold, nodes, runs, wants
from trainyard_operator.queue.estimate import DEPTH, estimates, expected_run
from trainyard_operator.queue.models import Basis, Expectation, in_order


def test_each_starts_when_those_before_it_make_room() -> None:
    inventory = nodes(2)
    for name in ("a", "b"):
        hold(inventory, f"pod-{name}", "n0", 1, job=name)
    running = [runs(wants("a"), "n0", remaining=100), runs(wants("b"), "n0", remaining=30)]
    waiting = in_order([wants("c", expected=10), wants("d", expected=10, at=1), wants("e", 2, at=2)])
    found = estimates(waiting, running, inventory)
    assert found == {
        "c": Expectation(30, Basis.PROGRESS),
        "d": Expectation(40, Basis.HISTORY),
        "e": Expectation(100, Basis.HISTORY),
    }


def test_the_least_sure_thing_it_rests_on_is_told() -> None:
    inventory = nodes(1)
    hold(inventory, "pod", "n0", 1, job="a")
    job = replace(runs(wants("a"), "n0"), remaining=Expectation(60, Basis.DEADLINE))
    assert estimates([wants("b")], [job], inventory) == {"b": Expectation(60, Basis.DEADLINE)}


def test_where_nobody_can_tell_nothing_is_told() -> None:
    inventory = nodes(1)
    hold(inventory, "pod", "n0", 1, job="a")
    assert estimates([wants("b"), wants("c", at=1)], [runs(wants("a"), "n0")], inventory) == {}


def test_the_order_is_kept_even_where_a_smaller_one_would_fit() -> None:
    inventory = nodes(4)
    hold(inventory, "pod", "n0", 2, job="a")
    waiting = in_order([wants("large", 4, expected=5), wants("small", at=1, expected=5)])
    found = estimates(waiting, [runs(wants("a", 2), "n0", remaining=50)], inventory)
    assert found["large"].seconds == 50
    assert found["small"].seconds == 55


def test_a_gang_waits_for_all_of_its_nodes() -> None:
    inventory = nodes(8, 8)
    hold(inventory, "p0", "n0", 8, job="a")
    hold(inventory, "p1", "n1", 8, job="b")
    running = [runs(wants("a", 8), "n0", remaining=10), runs(wants("b", 8), "n1", remaining=20)]
    assert estimates([wants("gang", 8, 2)], running, inventory)["gang"].seconds == 20


def test_only_the_front_of_a_long_queue_is_estimated() -> None:
    waiting = in_order([wants(f"j{i:03}", at=i, expected=10) for i in range(DEPTH + 10)])
    assert len(estimates(waiting, [], nodes(1))) == DEPTH


def test_a_job_that_outlasts_others_is_compared_with_those_that_ran_as_long() -> None:
    past = [5.0, 5.0, 5.0, 40.0, 50.0]
    assert expected_run(past, 0.0) == 5.0
    assert expected_run(past, 10.0) == 45.0
    assert expected_run(past, 60.0) == 120.0, "as long again"
