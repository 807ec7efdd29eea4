"""GPUs per node: what is there, who holds it, what is left. Every pod counts, foreign and terminating ones included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from trainyard_operator.queue.pool import Node, Object, Pool, units


class Holder(NamedTuple):
    """A pod bound to a node.

    Attributes:
        uid: The pod's.
        name: Its namespace and name.
        node: Name of the node.
        units: Units of each extended resource it holds there.
        owner: Namespace and UID of the TrainingJob it belongs to; empty for a foreign pod.
    """

    uid: str
    name: str
    node: str
    units: Mapping[str, int]
    owner: str = ""


class Inventory:
    """The nodes and the pods that hold GPUs on them, kept up to date event by event."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.silent: dict[str, str] = {}
        """Nodes that do not answer, and since when (API timestamps)."""
        self._holders: dict[str, Holder] = {}
        self._held: dict[str, Counter[str]] = {}
        self._bound: dict[str, Counter[str]] = {}

    def put_node(self, node: Node) -> bool:
        """Take in a node; whether anything changed that the queue looks at."""
        changed = self.nodes.get(node.name) != node
        self.nodes[node.name] = node
        if node.silent_since:
            self.silent[node.name] = node.silent_since
        else:
            self.silent.pop(node.name, None)
        return changed

    def remove_node(self, name: str) -> None:
        """Forget a node; its pods are forgotten when they are deleted."""
        self.nodes.pop(name, None)
        self.silent.pop(name, None)

    def put_pod(self, uid: str, holder: Holder | None) -> bool:
        """Take in what a pod holds now, None where it holds nothing; whether that changed."""
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
        """How many pods of a TrainingJob are on each node."""
        return self._bound.get(owner, {})

    def left(self, resource: str) -> dict[str, int]:
        """Units of a resource left on each node, closed ones included."""
        nothing: Counter[str] = Counter()
        return {
            name: max(0, node.allocatable.get(resource, 0) - self._held.get(name, nothing)[resource])
            for name, node in self.nodes.items()
        }

    def most(self, pool: Pool) -> list[int]:
        """GPUs each node of a pool could ever offer, closed ones included: they may open again."""
        counts = (node.allocatable.get(pool.resource, 0) for node in self.nodes.values() if pool.has(node))
        return [count for count in counts if count]

    def free_units(self) -> dict[str, int]:
        """Units left on all open nodes, by resource."""
        left: Counter[str] = Counter()
        for node in self.nodes.values():
            held = self._held.get(node.name, Counter())
            for resource, count in node.allocatable.items() if node.open else ():
                left[resource] += max(0, count - held[resource])
        return dict(left)

    def describe(self) -> dict[str, Any]:
        """Every node with extended resources, what is left of them, and who holds the rest."""
        held: dict[str, list[dict[str, Any]]] = {}
        for holder in self._holders.values():
            held.setdefault(holder.node, []).append({"pod": holder.name, "units": dict(holder.units)})
        return {
            "nodes": [
                {
                    "name": node.name,
                    "open": node.open,
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
    """What a v1 Pod holds; None for one that is not bound, is over, or holds no extended resource.

    A pod holds the larger of its init containers' largest request and the sum of its containers' (and of its sidecars,
    which are init containers that are restarted always), as the scheduler counts.
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
    owner = f"{metadata['namespace']}/{job_uid}" if job_uid else ""  # a label is easily forged, a namespace is not
    return Holder(metadata["uid"], name, node, held, owner) if held else None


def _requests(container: Object) -> dict[str, int]:
    resources = container.get("resources") or {}
    return units({**(resources.get("limits") or {}), **(resources.get("requests") or {})})
