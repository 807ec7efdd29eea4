"""GPUs of each node and the pods that hold them. All bound pods count, also foreign and terminating ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from trainyard_operator.queue.pool import Node, Object, Pool, units


class Holder(NamedTuple):
    """A bound pod that holds extended resources.

    Attributes:
        uid: The pod's UID.
        name: Its namespace and name.
        node: Name of its node.
        units: Units of each extended resource.
        owner: Namespace and UID of the admitted object it belongs to; empty for a foreign pod.
    """

    uid: str
    name: str
    node: str
    units: Mapping[str, int]
    owner: str = ""


class Inventory:
    """Nodes and the pods that hold GPUs on them, updated by watch events.

    Attributes:
        nodes: Nodes by name.
        unreachable: Unreachable nodes, and since when (API timestamps).
    """

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.unreachable: dict[str, str] = {}
        self._holders: dict[str, Holder] = {}
        self._held: dict[str, Counter[str]] = {}
        self._bound: dict[str, Counter[str]] = {}

    def put_node(self, node: Node) -> bool:
        """Store a node; return whether anything changed that matters to the queue."""
        changed = self.nodes.get(node.name) != node
        self.nodes[node.name] = node
        if node.unreachable_since:
            self.unreachable[node.name] = node.unreachable_since
        else:
            self.unreachable.pop(node.name, None)
        return changed

    def remove_node(self, name: str) -> None:
        """Remove a node; its pods remain until they are deleted."""
        self.nodes.pop(name, None)
        self.unreachable.pop(name, None)

    def put_pod(self, uid: str, holder: Holder | None) -> bool:
        """Store what a pod holds, or None for nothing; return whether that changed."""
        before = self._holders.get(uid)
        if before == holder:
            return False
        if before is not None:
            self._add(before, -1)
            del self._holders[uid]
        if holder is not None:
            self._add(holder, 1)
            self._holders[uid] = holder
        return True

    def bound(self, owner: str) -> Mapping[str, int]:
        """Return how many pods of an admitted object are on each node."""
        return self._bound.get(owner, {})

    def free(self, resource: str) -> dict[str, int]:
        """Return the free units of a resource on each node, schedulable or not."""
        nothing: Counter[str] = Counter()
        return {
            name: max(0, node.allocatable.get(resource, 0) - self._held.get(name, nothing)[resource])
            for name, node in self.nodes.items()
        }

    def capacity(self, pool: Pool) -> list[int]:
        """Return the GPUs of each node of a pool; unschedulable nodes count, since they may become schedulable."""
        counts = (node.allocatable.get(pool.resource, 0) for node in self.nodes.values() if pool.matches(node))
        return [count for count in counts if count]

    def closed(self, pool: Pool) -> Counter[str]:
        """Return how many nodes of a pool take no pods now, by `Node.closed`."""
        nodes = (node for node in self.nodes.values() if node.closed and node.allocatable.get(pool.resource))
        return Counter(node.closed for node in nodes if pool.matches(node))

    def mismatches(self, pool: Pool) -> Counter[str]:
        """Return how many nodes offer the resource of a pool and do not belong to it, by `Pool.mismatch`."""
        offering = (node for node in self.nodes.values() if node.allocatable.get(pool.resource))
        return Counter(cause for node in offering if (cause := pool.mismatch(node)))

    def free_units(self) -> dict[str, int]:
        """Return the free units on all schedulable nodes, by resource."""
        free: Counter[str] = Counter()
        for node in self.nodes.values():
            held = self._held.get(node.name, Counter())
            for resource, count in node.allocatable.items() if node.schedulable else ():
                free[resource] += max(0, count - held[resource])
        return dict(free)

    def describe(self) -> dict[str, Any]:
        """Return every node with extended resources, its usage, and its pods, for the debug endpoint."""
        held: dict[str, list[dict[str, Any]]] = {}
        for holder in self._holders.values():
            held.setdefault(holder.node, []).append({"pod": holder.name, "units": dict(holder.units)})
        return {
            "nodes": [
                {
                    "name": node.name,
                    "open": node.schedulable,
                    "allocatable": dict(node.allocatable),
                    "held": dict(+self._held.get(node.name, Counter())),
                    "pods": held.get(node.name, []),
                }
                for node in self.nodes.values()
                if node.allocatable
            ]
        }

    def _add(self, holder: Holder, sign: int) -> None:
        held = self._held.setdefault(holder.node, Counter())
        for resource, count in holder.units.items():
            held[resource] += sign * count
        if holder.owner:
            bound = self._bound.setdefault(holder.owner, Counter())
            bound[holder.node] += sign
            if not bound[holder.node]:
                del bound[holder.node]
            if not bound:
                del self._bound[holder.owner]


def holder_of(pod: Object, job_uid: str = "") -> Holder | None:
    """Return what a v1 Pod holds; None if it is not bound, has ended, or uses no extended resource.

    As in the scheduler, a pod uses the larger of its init containers' largest request and the sum of its containers'
    requests; sidecars (init containers with restartPolicy Always) run beside both.
    """
    spec, phase = pod.get("spec") or {}, (pod.get("status") or {}).get("phase")
    node = spec.get("nodeName")
    if not node or phase in ("Succeeded", "Failed"):
        return None
    running: Counter[str] = Counter()
    peak: Counter[str] = Counter()
    for container in spec.get("initContainers") or []:
        wanted = Counter(_requests(container))
        if container.get("restartPolicy") == "Always":
            running += wanted
        else:
            peak |= running + wanted
    for container in spec.get("containers") or []:
        running += Counter(_requests(container))
    held = dict(running | peak)
    metadata = pod["metadata"]
    name = f"{metadata['namespace']}/{metadata['name']}"
    owner = (
        f"{metadata['namespace']}/{job_uid}" if job_uid else ""
    )  # anyone can set a label, but only in their namespace
    return Holder(metadata["uid"], name, node, held, owner) if held else None


def _requests(container: Object) -> dict[str, int]:
    resources = container.get("resources") or {}
    return units({**(resources.get("limits") or {}), **(resources.get("requests") or {})})
