"""The inventory follows lists and watch events in any order."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.queue.state_model import free
from trainyard_operator.admission.inventory_feed import InventoryFeed
from trainyard_operator.queue.inventory import Inventory
from trainyard_operator.queue.pool import Pool
from trainyard_operator.queue.quota import Quotas

GPU, MOMENT = "nvidia.com/gpu", "2026-01-02T10:00:00Z"
Object = dict[str, Any]


class Lists:
    """A fake API server that answers lists only."""

    def __init__(self) -> None:
        self.nodes: list[Object] = []
        self.pods: list[Object] = []
        self.quotas: list[Object] = []
        self.version = 1

    async def list_all(self, url: str, _query: Any, keep: Callable[[Object], Any]) -> tuple[list[Any], str]:
        items = {"nodes": self.nodes, "pods": self.pods, "resourcequotas": self.quotas}[url.rpartition("/")[2]]
        return [keep(item) for item in items], str(self.version)


def node(name: str, gpus: int, version: int) -> Object:
    status = {"allocatable": {GPU: str(gpus)}, "conditions": [{"type": "Ready", "status": "True"}]}
    return {"metadata": {"name": name, "uid": f"node-{name}", "resourceVersion": str(version)}, "status": status}


def pod(name: str, where: str, gpus: int, version: int, phase: str = "Running") -> Object:
    return {
        "metadata": {"name": name, "namespace": "team", "uid": f"pod-{name}", "resourceVersion": str(version)},
        "spec": {"nodeName": where, "containers": [{"resources": {"limits": {GPU: str(gpus)}}}]},
        "status": {"phase": phase},
    }


def quota(name: str, gpus: int, version: int) -> Object:
    metadata = {"name": name, "namespace": "team", "uid": f"quota-{name}", "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {"hard": {f"requests.{GPU}": str(gpus)}}}


def feed(quotas: Quotas | None = None) -> tuple[InventoryFeed, Lists, Inventory, list[None]]:
    lists, inventory, woken = Lists(), Inventory(), list[None]()
    kube: Any = lists
    inventory_feed = InventoryFeed(
        kube, inventory, quotas or Quotas(), clock=lambda: 0.0, wake=lambda: woken.append(None)
    )
    return inventory_feed, lists, inventory, woken


async def relist(inventory_feed: InventoryFeed) -> None:
    for informer in inventory_feed.informers:
        await informer.relist()


async def test_lists_fill_the_inventory_and_watch_events_update_it() -> None:
    inventory_feed, lists, inventory, woken = feed()
    lists.nodes, lists.pods, lists.version = [node("a", 8, 3)], [pod("p", "a", 2, 4)], 5
    await relist(inventory_feed)
    assert (free(inventory, Pool(GPU)), len(woken)) == ({"a": 6}, 2)
    inventory_feed.pods.handle({"type": "MODIFIED", "object": pod("p", "a", 2, 6, phase="Succeeded")})
    inventory_feed.pods.handle({"type": "ADDED", "object": pod("q", "a", 5, 7)})
    assert (free(inventory, Pool(GPU)), len(woken)) == ({"a": 3}, 4)
    inventory_feed.pods.handle({"type": "DELETED", "object": pod("q", "a", 5, 8)})
    inventory_feed.nodes.handle({"type": "DELETED", "object": node("a", 8, 9)})
    assert (free(inventory, Pool(GPU)), len(woken)) == ({}, 6)


async def test_changes_of_node_reachability_are_reported() -> None:
    kube: Any = Lists()
    inventory, notified = Inventory(), list[str]()
    inventory_feed = InventoryFeed(
        kube, inventory, Quotas(), clock=lambda: 0.0, wake=lambda: None, on_node_readiness=notified.append
    )
    inventory_feed.nodes.handle({"type": "ADDED", "object": node("a", 8, 1)})
    inventory_feed.nodes.handle({"type": "MODIFIED", "object": unreachable(node("a", 8, 2))})
    assert (inventory.unreachable, notified) == ({"a": MOMENT}, ["a"])
    inventory_feed.nodes.handle({"type": "MODIFIED", "object": unreachable(node("a", 7, 3))})
    inventory_feed.nodes.handle({"type": "MODIFIED", "object": node("a", 7, 4)})
    assert (inventory.unreachable, notified) == ({}, ["a", "a"])
    inventory_feed.nodes.handle({"type": "MODIFIED", "object": unreachable(node("a", 7, 5))})
    inventory_feed.nodes.handle({"type": "DELETED", "object": node("a", 7, 6)})
    assert (inventory.unreachable, len(notified)) == ({}, 4)


def unreachable(body: Object) -> Object:
    body["status"]["conditions"] = [{"type": "Ready", "status": "Unknown", "lastTransitionTime": MOMENT}]
    return body


async def test_event_without_effect_does_not_wake_the_queue() -> None:
    inventory_feed, lists, _, woken = feed()
    lists.nodes = [node("a", 8, 1)]
    await relist(inventory_feed)
    inventory_feed.nodes.handle({"type": "MODIFIED", "object": node("a", 8, 2)})
    await relist(inventory_feed)
    assert len(woken) == 1


async def test_list_removes_missing_objects_but_not_newer_ones() -> None:
    inventory_feed, lists, inventory, _ = feed()
    lists.nodes, lists.pods = [node("a", 8, 1), node("b", 8, 1)], [pod("p", "a", 2, 1), pod("q", "a", 1, 1)]
    await relist(inventory_feed)
    inventory_feed.nodes.handle({"type": "ADDED", "object": node("late", 4, 12)})
    inventory_feed.pods.handle({"type": "ADDED", "object": pod("late", "a", 3, 12)})
    lists.nodes, lists.pods, lists.version = [node("a", 8, 1)], [pod("p", "a", 2, 1)], 10
    await relist(inventory_feed)
    assert free(inventory, Pool(GPU)) == {"a": 3, "late": 4}


async def test_quotas_follow_lists_and_events() -> None:
    quotas = Quotas()
    inventory_feed, lists, _, woken = feed(quotas)
    lists.quotas = [quota("a", 4, 1)]
    await relist(inventory_feed)
    assert [known.name for known in quotas.of("team")] == ["a"]
    inventory_feed.quotas.handle({"type": "ADDED", "object": quota("b", 8, 5)})
    inventory_feed.quotas.handle({"type": "MODIFIED", "object": quota("b", 9, 4)})
    lists.quotas, lists.version = [], 3
    await relist(inventory_feed)
    assert [(known.name, known.hard[f"requests.{GPU}"]) for known in quotas.of("team")] == [("b", Fraction(8))]
    inventory_feed.quotas.handle({"type": "DELETED", "object": quota("b", 8, 6)})
    assert not quotas.of("team")
    assert len(woken) == 4


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.integers(1, 20)), max_size=20))
def test_older_version_never_replaces_a_newer_one(events: list[tuple[int, int, int]]) -> None:
    inventory_feed, _, inventory, _ = feed()
    inventory_feed.nodes.handle({"type": "ADDED", "object": node("a", 100, 1)})
    newest: dict[int, tuple[int, int]] = {}
    for number, count, version in events:
        inventory_feed.pods.handle({"type": "MODIFIED", "object": pod(str(number), "a", count, version)})
        if number not in newest or version > newest[number][0]:
            newest[number] = (version, count)
    assert free(inventory, Pool(GPU)) == {"a": 100 - sum(count for _, count in newest.values())}
