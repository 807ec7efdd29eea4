from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.queue.state_model import GPU, POOL, free, hold, nodes
from trainyard_operator.queue.inventory import Holder, Inventory, holder_of
from trainyard_operator.queue.pool import Node, Pool


def container(gpus: int, **more: Any) -> dict[str, Any]:
    return {"name": "c", "resources": {"limits": {GPU: str(gpus), "cpu": "1"}}, **more}


def pod(*containers: dict[str, Any], phase: str = "Running", node: str | None = "n0", **more: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {"containers": list(containers), **more}
    if node:
        spec["nodeName"] = node
    return {"metadata": {"uid": "u", "name": "p", "namespace": "team"}, "spec": spec, "status": {"phase": phase}}


def test_a_bound_pod_holds_the_sum_of_its_containers() -> None:
    assert holder_of(pod(container(2), container(1))) == Holder("u", "team/p", "n0", {GPU: 3})


def test_init_containers_hold_their_peak_beside_sidecars() -> None:
    found = holder_of(pod(container(1), initContainers=[container(1, restartPolicy="Always"), container(4)]))
    assert found is not None
    assert found.units == {GPU: 5}, "the sidecar runs beside the init container that make_request 4"


def test_unbound_ended_and_cpu_pods_hold_nothing() -> None:
    assert holder_of(pod(container(1), node=None)) is None
    assert holder_of(pod(container(1), phase="Succeeded")) is None
    assert holder_of(pod({"name": "c"})) is None


def test_terminating_pod_holds_its_gpus_until_deletion() -> None:
    leaving = pod(container(1))
    leaving["metadata"]["deletionTimestamp"] = "2026-01-02T10:00:00Z"
    assert holder_of(leaving) is not None


def test_foreign_pods_count_and_unschedulable_nodes_have_no_free_gpus() -> None:
    inventory = nodes(8, 4)
    hold(inventory, "foreign", "n0", 3)
    assert free(inventory, POOL) == {"n0": 5, "n1": 4}
    inventory.put_node(Node(name="n1", closed="cordoned", allocatable={GPU: 4}))
    assert free(inventory, POOL) == {"n0": 5}
    assert sorted(inventory.capacity(POOL)) == [4, 8], "a closed node may open again"


def test_resources_are_counted_separately() -> None:
    inventory = Inventory()
    inventory.put_node(Node(name="n0", allocatable={GPU: 2, "nvidia.com/mig-1g.10gb": 7}))
    hold(inventory, "p", "n0", 2)
    assert free(inventory, Pool("nvidia.com/mig-1g.10gb")) == {"n0": 7}


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.one_of(st.none(), st.tuples(st.integers(0, 2), st.integers(1, 4)))),
        max_size=40,
    )
)
def test_counts_match_the_latest_version_of_each_pod(events: list[tuple[int, tuple[int, int] | None]]) -> None:
    inventory, last = nodes(100, 100, 100), dict[str, Holder]()
    for number, placed in events:
        uid = f"p{number}"
        if placed is None:
            inventory.put_pod(uid, None)
            last.pop(uid, None)
        else:
            last[uid] = Holder(uid, uid, f"n{placed[0]}", {GPU: placed[1]}, f"job{number % 2}")
            inventory.put_pod(uid, last[uid])
    held = Counter[str]()
    for holder in last.values():
        held[holder.node] += holder.units[GPU]
    assert free(inventory, POOL) == {f"n{i}": 100 - held[f"n{i}"] for i in range(3)}
    for job in ("job0", "job1"):
        assert Counter(inventory.bound(job)) == Counter(h.node for h in last.values() if h.owner == job)
