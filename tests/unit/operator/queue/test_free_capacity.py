"""What is held back for pods that are not bound, above all for those of a gang that lost one of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.operator.queue.state_model import POOL, hold, make_admitted, make_request, nodes
from trainyard_operator.queue.free_capacity import FreeCapacity, unbound_pods

GANG = make_request("gang", 8, nodes=2)


@pytest.mark.parametrize(
    ("bound", "done", "planned", "held"),
    [
        ([], 0, ("n0", "n1"), ["n0", "n1"]),
        (["n0"], 0, ("n0", "n1"), ["n1"]),
        (["n1"], 0, ("n0", "n1"), ["n0"]),
        (["n0", "n1"], 0, ("n0", "n1"), []),
        (["n0", "n2"], 0, ("n0", "n1"), []),
        (["n2"], 0, ("n0", "n1"), ["n0"]),
        (["n0"], 1, ("n0", "n1"), []),
        ([], 1, ("n0", "n1"), ["n0"]),
        (["n0"], 0, (), [""]),
        ([], 0, ("n0", "n0"), ["n0", "n0"]),
        (["n0"], 0, ("n0", "n0"), ["n0"]),
    ],
)
def test_unbound_pods_of_a_gang_keep_their_nodes(
    bound: list[str], done: int, planned: tuple[str, ...], held: list[str]
) -> None:
    inventory = nodes(16, 8, 8)
    for number, node in enumerate(bound):
        hold(inventory, f"pod-{number}", node, 8, "gang")
    job = replace(make_admitted(GANG, *planned), succeeded_pods=done)
    assert unbound_pods(inventory, job) == held
    assert unbound_pods(inventory, replace(job, releasing=True)) == []


def test_restarted_pod_keeps_its_gpus() -> None:
    inventory = nodes(8, 8)
    hold(inventory, "first", "n0", 8, "gang")
    gang = make_admitted(GANG, "n0", "n1")
    room = FreeCapacity(inventory, [gang])
    assert room.free(POOL) == {"n0": 0, "n1": 0}
    assert FreeCapacity(inventory, [replace(gang, succeeded_pods=1)]).free(POOL) == {"n0": 0, "n1": 8}
    assert room.place(make_request("small")) is None
