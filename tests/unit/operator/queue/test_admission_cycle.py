from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.operator.queue.state_model import GPU, NOW, hold, make_admitted, make_request, nodes, quota, quotas
from trainyard_operator.queue.admission_cycle import Outcome, admit
from trainyard_operator.queue.inventory import Inventory
from trainyard_operator.queue.models import Request, in_order
from trainyard_operator.queue.policy import Policy
from trainyard_operator.queue.pool import REPLICAS_LABEL, Node, Pool, Taint

STRICT = Policy()


def starts(outcome: Outcome) -> list[str]:
    return [start.request.uid for start in outcome.starts]


def test_higher_priority_first_then_first_come() -> None:
    found = admit(
        [make_request("c", at=2), make_request("b", at=1), make_request("a", at=3, priority=9)],
        [],
        nodes(2),
        STRICT,
        NOW,
    )
    assert starts(found) == ["a", "b"]
    assert found.reasons["c"].message == "It needs 1 GPU on one node; the most free is 0."


def test_small_jobs_do_not_pass_a_blocked_large_one() -> None:
    inventory = nodes(8)
    hold(inventory, "foreign", "n0", 1)
    found = admit([make_request("large", 8), make_request("small", at=1)], [], inventory, STRICT, NOW)
    assert starts(found) == []
    assert found.reasons["large"] == ("WaitingForGpus", "It needs 8 GPUs on one node; the most free is 7.")
    assert found.reasons["small"].code == "WaitingForTurn"
    assert [request.uid for request in found.waiting] == ["large", "small"]


def test_half_free_nodes_do_not_add_up() -> None:
    inventory = nodes(2, 2)
    for node in ("n0", "n1"):
        hold(inventory, f"foreign-{node}", node, 1)
    assert starts(admit([make_request("two", 2)], [], inventory, STRICT, NOW)) == []


def test_gang_is_admitted_whole_or_not_at_all() -> None:
    found = admit([make_request("gang", 8, 3)], [], nodes(8, 8, 8), STRICT, NOW)
    assert found.starts[0].placement == ("n0", "n1", "n2")
    inventory = nodes(8, 8, 8)
    hold(inventory, "foreign", "n1", 1)
    found = admit([make_request("gang", 8, 3)], [], inventory, STRICT, NOW)
    assert found.reasons["gang"].message == ("It needs 8 GPUs for each of 3 pods; there is room for 2 of them.")


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (
            make_request("x", 16),
            "It needs 16 GPUs on one node; the largest node of nvidia.com/gpu has 8. Lower spec.resources.gpus.",
        ),
        (
            make_request("x", 8, 3),
            (
                "It needs 8 GPUs for each of 3 pods; nvidia.com/gpu has 16 GPUs on 2 nodes in all. "
                "Lower spec.resources.nodes or gpus."
            ),
        ),
        (
            make_request("x", pool=Pool(GPU, (("gpu", "b200"),))),
            (
                "No node offers nvidia.com/gpu (gpu=b200) to it: 2 nodes without the label gpu=b200; check "
                "spec.resources.gpuResource, nodeSelector and tolerations."
            ),
        ),
        (
            make_request("x", pool=Pool("amd.com/gpu")),
            "No node offers amd.com/gpu; check spec.resources.gpuResource, nodeSelector and tolerations.",
        ),
    ],
    ids=["node", "nodes", "pool", "resource"],
)
def test_job_that_exceeds_capacity_blocks_no_other_job(request_: Request, sentence: str) -> None:
    found = admit(
        [request_, make_request("next", pool=request_.pool, at=1), make_request("small", at=2)],
        [],
        nodes(8, 8),
        STRICT,
        NOW,
    )
    assert found.reasons["x"] == ("ExceedsCapacity", sentence)
    assert "small" in starts(found)
    assert "x" not in [request.uid for request in found.waiting]


def test_admitted_job_keeps_its_gpus_until_its_pods_are_bound() -> None:
    inventory = nodes(8, 8)
    gang = make_request("gang", 8, 2)
    assert starts(admit([make_request("next")], [make_admitted(gang, "n0", "n1")], inventory, STRICT, NOW)) == []
    hold(inventory, "gang-0", "n0", 8, job="gang")
    assert starts(admit([make_request("next")], [make_admitted(gang, "n0", "n1")], inventory, STRICT, NOW)) == []


def test_pod_on_another_node_than_planned_counts_there() -> None:
    inventory = nodes(8, 8)
    hold(inventory, "pod", "n1", 8, job="a")
    found = admit([make_request("b", 8, at=1)], [make_admitted(make_request("a", 8), "n0")], inventory, STRICT, NOW)
    assert found.starts[0].placement == ("n0",)


def test_releasing_job_holds_only_the_gpus_of_its_pods() -> None:
    inventory = nodes(2)
    hold(inventory, "pod", "n0", 1, job="a")
    leaving = make_admitted(make_request("a", 1, 2), "n0", "n0", releasing=True)
    assert starts(admit([make_request("b"), make_request("c", at=1)], [leaving], inventory, STRICT, NOW)) == ["b"]


def test_jobs_without_gpus_do_not_wait_for_jobs_with_gpus() -> None:
    found = admit([make_request("large", 8), make_request("cpu", 0, at=1)], [], nodes(8, 8), STRICT, NOW)
    assert "cpu" in starts(found)
    assert starts(admit([make_request("cpu", 0)], [], Inventory(), STRICT, NOW)) == ["cpu"]


def test_job_waits_for_an_unschedulable_node() -> None:
    inventory = nodes(8)
    inventory.put_node(Node(name="n0", closed="cordoned", allocatable={GPU: 8}))
    found = admit([make_request("a")], [], inventory, STRICT, NOW)
    assert found.reasons["a"].code == "WaitingForGpus"


def test_reason_names_what_keeps_nodes_from_the_job() -> None:
    inventory = Inventory()
    inventory.put_node(Node(name="a", labels={REPLICAS_LABEL: "4"}, allocatable={GPU: 4}))
    inventory.put_node(Node(name="b", taints=(Taint("team", "vision", "NoSchedule"),), allocatable={GPU: 8}))
    found = admit([make_request("x")], [], inventory, STRICT, NOW).reasons["x"]
    assert found.message == (
        "No node offers nvidia.com/gpu to it: 1 node with the taint team=vision:NoSchedule, 1 node with time-sliced "
        "GPUs (label nvidia.com/gpu.replicas); check spec.resources.gpuResource, nodeSelector and tolerations."
    )
    for name, closed in (("c", "cordoned"), ("d", "not ready"), ("e", "cordoned")):
        inventory.put_node(Node(name=name, closed=closed, allocatable={GPU: 8}))
    found = admit([make_request("x")], [], inventory, STRICT, NOW).reasons["x"]
    assert found.code == "WaitingForGpus"
    assert found.message == (
        "It needs 1 GPU on one node; the most free is 0. Nodes of nvidia.com/gpu that take no pods: 2 cordoned, 1 not "
        "ready."
    )


def test_blocked_head_does_not_block_another_pool() -> None:
    inventory = nodes(2)
    inventory.put_node(Node(name="mig", allocatable={"nvidia.com/mig-1g.10gb": 7}))
    hold(inventory, "foreign", "n0", 1)
    mig = make_request("mig", pool=Pool("nvidia.com/mig-1g.10gb"), at=1)
    assert starts(admit([make_request("head", 2), mig], [], inventory, STRICT, NOW)) == ["mig"]


def test_namespace_cap_excludes_its_jobs_and_blocks_no_other_job() -> None:
    policy = Policy(namespace_gpus={"team": 2})
    running = [make_admitted(make_request("r"), "n0")]
    found = admit(
        [make_request("two", 2), make_request("one", at=1), make_request("b", namespace="b", at=2)],
        running,
        nodes(8),
        policy,
        NOW,
    )
    assert starts(found) == ["one", "b"]
    assert found.reasons["two"].message == "Namespace team may hold 2 GPUs and holds 1; this job needs 2."


def test_job_keeps_its_position_while_it_backs_off() -> None:
    late = make_request("a", not_before=NOW + dt.timedelta(seconds=60))
    found = admit([late, make_request("b", at=1)], [], nodes(1), STRICT, NOW)
    assert starts(found) == ["b"]
    assert found.reasons["a"].message.endswith("is tried again at 10:01:00 UTC.")
    found = admit([late, make_request("b", at=1)], [], nodes(1), STRICT, NOW + dt.timedelta(seconds=60))
    assert starts(found) == ["a"]


def test_backoff_is_reported_behind_a_blocked_head() -> None:
    inventory = nodes(8)
    hold(inventory, "foreign", "n0", 1)
    late = make_request("late", at=1, not_before=NOW + dt.timedelta(seconds=60))
    found = admit([make_request("large", 8), late], [], inventory, STRICT, NOW)
    assert found.reasons["late"].code == "BackingOff"
    assert found.nonblocking == {"late"}


def test_held_queue_admits_no_job() -> None:
    found = admit([make_request("a"), make_request("cpu", 0)], [], nodes(8), Policy(held=True), NOW)
    assert not found.starts
    assert found.reasons["a"].code == "QueueHeld"


HARD = st.integers(0, 6)
"""GPUs that a ResourceQuota allows the namespace team."""
DELAYS = st.sampled_from([None, None, -1, 0, 1])
"""Seconds until the end of a backoff; mostly none."""
NAMESPACES = st.sampled_from(["team", "free", "free"])
REQUESTS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 2), st.integers(0, 2), st.integers(0, 3), DELAYS, NAMESPACES),
    max_size=12,
).map(lambda rows: [request_of(number, row) for number, row in enumerate(rows)])


def request_of(number: int, row: tuple[int, int, int, int, int | None, str]) -> Request:
    gpus, nodes, priority, at, delay, namespace = row
    late = None if delay is None else NOW + dt.timedelta(seconds=delay)
    return make_request(f"j{number}", gpus, nodes, priority=priority, at=at, not_before=late, namespace=namespace)


@given(REQUESTS, st.lists(st.integers(0, 4), min_size=1, max_size=3), HARD)
@settings(max_examples=200)
def test_strict_order_matches_a_naive_reference(requests: list[Request], sizes: list[int], hard: int) -> None:
    """The reference tries every job from the front with nested loops and stops at the first that does not fit.

    It skips jobs that exceed the capacity, back off or lack quota.
    """
    limit = quotas(quota({f"requests.{GPU}": str(hard)}))
    found = admit(requests, [], nodes(*sizes), STRICT, NOW, quotas=limit)
    quota_left = {"team": hard, "free": 1000}
    free = dict(enumerate(sizes))
    expected = []
    for request in sorted(requests, key=lambda r: (-r.priority, r.enqueued_at, r.uid)):
        if sum(size // request.gpus for size in sizes) < request.nodes:
            continue
        if request.total > quota_left[request.namespace] or (request.not_before or NOW) > NOW:
            continue
        if sum(left // request.gpus for left in free.values()) < request.nodes:
            break
        expected.append(request.uid)
        quota_left[request.namespace] -= request.total
        for _ in range(request.nodes):
            node = min((n for n in free if free[n] >= request.gpus), key=lambda n: (free[n], f"n{n}"))
            free[node] -= request.gpus
    assert starts(found) == expected


@given(REQUESTS, REQUESTS, st.lists(st.integers(0, 4), min_size=1, max_size=3), st.booleans(), st.booleans())
@settings(max_examples=120)
def test_gpus_are_never_admitted_twice(
    waiting: list[Request], before: list[Request], sizes: list[int], backfill: bool, preemption: bool
) -> None:
    inventory = nodes(*sizes)
    first = admit(before, [], inventory, STRICT, NOW)
    running = [make_admitted(start.request, *start.placement) for start in first.starts]
    renamed = [make_request(f"w{r.uid}", r.gpus, r.nodes, priority=r.priority, time_limit=60) for r in waiting]
    found = admit(renamed, running, inventory, Policy(backfill=backfill, preemption=preemption), NOW)
    used = dict.fromkeys((f"n{i}" for i in range(len(sizes))), 0)
    for start in [*first.starts, *found.starts]:
        assert len(start.placement) == start.request.nodes
        for node in start.placement:
            used[node] += start.request.gpus
    assert all(used[f"n{i}"] <= size for i, size in enumerate(sizes))
    decided = {*starts(found), *found.reasons}
    assert decided == {request.uid for request in renamed}, "every job starts or has a reason"
    assert not set(starts(found)) & set(found.reasons)


def test_the_order_is_total() -> None:
    same = [make_request("b"), make_request("a")]
    assert [request.uid for request in in_order(same)] == ["a", "b"]
