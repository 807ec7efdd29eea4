from __future__ import annotations

from dataclasses import replace

from tests.unit.operator.queue.state_model import hold, make_admitted, make_request, nodes
from trainyard_operator.queue.estimate import DEPTH, estimates, expected_run
from trainyard_operator.queue.models import Basis, Estimate, in_order


def test_estimates_follow_the_ends_of_earlier_jobs() -> None:
    inventory = nodes(2)
    for name in ("a", "b"):
        hold(inventory, f"pod-{name}", "n0", 1, job=name)
    running = [
        make_admitted(make_request("a"), "n0", remaining=100),
        make_admitted(make_request("b"), "n0", remaining=30),
    ]
    waiting = in_order(
        [make_request("c", expected_run=10), make_request("d", expected_run=10, at=1), make_request("e", 2, at=2)]
    )
    found = estimates(waiting, running, inventory)
    assert found == {
        "c": Estimate(30, Basis.PROGRESS),
        "d": Estimate(40, Basis.HISTORY),
        "e": Estimate(100, Basis.HISTORY),
    }


def test_estimate_has_the_weakest_basis() -> None:
    inventory = nodes(1)
    hold(inventory, "pod", "n0", 1, job="a")
    job = replace(make_admitted(make_request("a"), "n0"), remaining=Estimate(60, Basis.DEADLINE))
    assert estimates([make_request("b")], [job], inventory) == {"b": Estimate(60, Basis.DEADLINE)}


def test_no_estimate_without_an_expected_end() -> None:
    inventory = nodes(1)
    hold(inventory, "pod", "n0", 1, job="a")
    assert (
        estimates([make_request("b"), make_request("c", at=1)], [make_admitted(make_request("a"), "n0")], inventory)
        == {}
    )


def test_estimates_keep_the_strict_order() -> None:
    inventory = nodes(4)
    hold(inventory, "pod", "n0", 2, job="a")
    waiting = in_order([make_request("large", 4, expected_run=5), make_request("small", at=1, expected_run=5)])
    found = estimates(waiting, [make_admitted(make_request("a", 2), "n0", remaining=50)], inventory)
    assert found["large"].seconds == 50
    assert found["small"].seconds == 55


def test_estimate_of_a_gang_waits_for_all_nodes() -> None:
    inventory = nodes(8, 8)
    hold(inventory, "p0", "n0", 8, job="a")
    hold(inventory, "p1", "n1", 8, job="b")
    running = [
        make_admitted(make_request("a", 8), "n0", remaining=10),
        make_admitted(make_request("b", 8), "n1", remaining=20),
    ]
    assert estimates([make_request("gang", 8, 2)], running, inventory)["gang"].seconds == 20


def test_only_the_front_of_a_long_queue_gets_estimates() -> None:
    waiting = in_order([make_request(f"j{i:03}", at=i, expected_run=10) for i in range(DEPTH + 10)])
    assert len(estimates(waiting, [], nodes(1))) == DEPTH


def test_expected_run_uses_only_longer_runs() -> None:
    past = [5.0, 5.0, 5.0, 40.0, 50.0]
    assert expected_run(past, 0.0) == 5.0
    assert expected_run(past, 10.0) == 45.0
    assert expected_run(past, 60.0) == 120.0, "as long again"
