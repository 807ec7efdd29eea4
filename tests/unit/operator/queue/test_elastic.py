"""Nodes that an autoscaler can still add."""

from __future__ import annotations

import pytest

from tests.unit.operator.queue.state_model import GPU, NOW, hold, make_admitted, make_request, nodes
from trainyard_operator.queue.admission_cycle import Outcome, admit
from trainyard_operator.queue.elastic import ElasticPool, serving
from trainyard_operator.queue.estimate import estimates
from trainyard_operator.queue.free_capacity import FreeCapacity
from trainyard_operator.queue.inventory import Inventory
from trainyard_operator.queue.models import Admitted, Basis, Estimate, Request
from trainyard_operator.queue.policy import Policy
from trainyard_operator.queue.pool import Node, Pool, Taint, Toleration

A100 = {"gpu": "a100"}
ON_A100 = Pool(GPU, (("gpu", "a100"),))


def pool(most: int = 2, **changes: object) -> ElasticPool:
    values = {"name": "a100", "gpu_resource": GPU, "max_nodes": most, "gpus_per_node": 8, "start_seconds": 1200}
    return ElasticPool(**{**values, **changes})  # type: ignore[arg-type]


def cycle(
    *waiting: Request, inventory: Inventory | None = None, admitted: tuple[Admitted, ...] = (), **changes: object
) -> Outcome:
    elastic = Policy(elastic_pools=(pool(**changes),))  # type: ignore[arg-type]
    return admit(waiting, admitted, inventory or Inventory(), elastic, NOW)


def starts(found: Outcome) -> dict[str, tuple[str, ...]]:
    return {start.request.uid: start.placement for start in found.starts}


def test_jobs_are_admitted_up_to_the_declared_maximum_and_wait_in_order_beyond() -> None:
    found = cycle(*(make_request(name, 8, at=at) for at, name in enumerate("abcd")))
    assert starts(found) == {"a": ("+a100-1",), "b": ("+a100-2",)}
    assert {uid: reason.code for uid, reason in found.reasons.items()} == {"c": "WaitingForGpus", "d": "WaitingForTurn"}


def test_gpus_that_are_free_now_are_preferred_to_a_new_node() -> None:
    assert starts(cycle(make_request("a", 4), inventory=nodes(8))) == {"a": ("n0",)}
    gang = cycle(make_request("g", 8, 2), inventory=nodes(8))
    assert starts(gang) == {"g": ("+a100-2", "n0")}


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (make_request("x", 9), "It needs 9 GPUs on one node; the largest node of nvidia.com/gpu has 8."),
        (
            make_request("x", 8, 3),
            "It needs 8 GPUs for each of 3 pods; nvidia.com/gpu has 16 GPUs on 2 nodes in all.",
        ),
    ],
)
def test_job_larger_than_the_declared_maximum_exceeds_the_capacity(request_: Request, reason: str) -> None:
    found = cycle(request_).reasons["x"]
    assert found.code == "ExceedsCapacity"
    assert found.message.startswith(reason)


def test_promised_nodes_are_not_promised_again() -> None:
    waits = make_admitted(make_request("a", 8), "+a100-1")
    restarted = make_admitted(make_request("b", 8))
    found = cycle(make_request("c", 8), admitted=(waits, restarted))
    assert found.reasons["c"].code == "WaitingForGpus"


def test_node_that_joins_replaces_a_promised_one() -> None:
    waits, inventory = make_admitted(make_request("a", 8), "+a100-1"), Inventory()
    inventory.put_node(Node(name="new", allocatable={}))  # its device plugin has not started yet
    assert starts(cycle(make_request("b", 8), inventory=inventory, admitted=(waits,))) == {"b": ("+a100-2",)}
    inventory.put_node(Node(name="new", allocatable={GPU: 8}))
    assert starts(cycle(make_request("b", 8), inventory=inventory, admitted=(waits,))) == {"b": ("+a100-2",)}
    hold(inventory, "pod", "new", 8, job="a")
    assert starts(cycle(make_request("b", 8), inventory=inventory, admitted=(waits,))) == {"b": ("+a100-2",)}


def test_job_that_waits_for_a_node_takes_the_gpus_that_become_free_before() -> None:
    waits = make_admitted(make_request("a", 8), "+a100-2")
    free = FreeCapacity(nodes(8), (waits,), (pool(),)).free(Pool(GPU))
    assert free == {"n0": 0, "+a100-2": 8}


def test_only_nodes_of_the_group_use_up_its_growth() -> None:
    inventory = nodes(8, 8)
    inventory.put_node(Node(name="a", labels={**A100, "zone": "x"}, closed="cordoned", allocatable={GPU: 8}))
    found = cycle(make_request("a", 8, pool=ON_A100), inventory=inventory, labels=A100)
    assert starts(found) == {"a": ("+a100-2",)}


@pytest.mark.parametrize(
    ("request_", "serves"),
    [
        (make_request("x", 8, pool=ON_A100._replace(tolerations=(Toleration("spot", "Exists", "", ""),))), True),
        (make_request("x", 8, pool=ON_A100), False),
        (make_request("x", 9, pool=Pool(GPU, (), (Toleration("", "Exists", "", ""),))), False),
        (make_request("x", 8, pool=Pool("amd.com/gpu", (), (Toleration("", "Exists", "", ""),))), False),
        (make_request("x", 8, pool=Pool(GPU, (("gpu", "h100"),), (Toleration("", "Exists", "", ""),))), False),
        (make_request("x", 0), False),
    ],
    ids=["labels and taint", "not tolerated", "too large", "other resource", "other label", "no GPUs"],
)
def test_pool_serves_the_jobs_whose_pods_its_nodes_can_take(request_: Request, serves: bool) -> None:
    tainted = pool(labels=A100, taints=(Taint("spot", "", "NoSchedule"),))
    assert bool(serving([tainted], request_)) is serves


def test_estimates_count_future_nodes_and_no_more() -> None:
    inventory = nodes(8)
    hold(inventory, "pod", "n0", 8, job="a")
    running = [make_admitted(make_request("a", 8), "n0", remaining=50)]
    waiting = [make_request(name, 8, at=at, expected_run=100) for at, name in enumerate("bcd")]
    found = estimates(waiting, running, inventory, (pool(),))
    assert found == {
        "b": Estimate(0, Basis.PROGRESS),
        "c": Estimate(50, Basis.PROGRESS),
        "d": Estimate(100, Basis.HISTORY),
    }


@pytest.mark.parametrize(("general", "timeout"), [(300, 1200), (3600, 1200), (None, 1200)])
def test_start_timeout_covers_the_creation_of_a_node(general: int | None, timeout: int) -> None:
    policy = Policy(start_seconds=general)
    assert policy.timeout([pool()]) == timeout
    assert policy.timeout([]) == general
