"""Elastic pools: nodes that do not exist yet and that an autoscaler adds for pods that find no room.

The administrator declares what a node group can become. The queue admits jobs to its future nodes as to free ones,
never to more than declared; the pod of such a job is what asks the autoscaler.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from trainyard_operator.queue.inventory import Inventory
from trainyard_operator.queue.models import Request
from trainyard_operator.queue.placement import future_name
from trainyard_operator.queue.pool import Node, Taint


@dataclass(frozen=True, kw_only=True)
class ElasticPool:
    """A node group that an autoscaler grows.

    Attributes:
        name: Its name, for messages.
        gpu_resource: Extended resource of its GPUs.
        max_nodes: Nodes that it has at most.
        gpus_per_node: GPUs of each node.
        labels: Labels of its nodes; they also identify its nodes among those that exist.
        taints: Taints of its nodes.
        start_seconds: Start timeout in seconds of jobs that it can serve: it covers the creation of a node.
    """

    name: str
    gpu_resource: str
    max_nodes: int
    gpus_per_node: int
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    start_seconds: int

    def existing(self, inventory: Inventory) -> int:
        """Return how many of its nodes exist; one counts from when it offers its GPUs."""
        nodes = (node for node in inventory.nodes.values() if node.allocatable.get(self.gpu_resource))
        return sum(self.labels.items() <= node.labels.items() for node in nodes)

    def future(self, inventory: Inventory) -> list[Node]:
        """Return the nodes that it can still get."""
        return [self._node(number) for number in range(self.existing(inventory) + 1, self.max_nodes + 1)]

    def serves(self, request: Request) -> bool:
        """Return whether the pods of a job can run on its nodes."""
        fits = request.pool.resource == self.gpu_resource and request.gpus <= self.gpus_per_node
        return fits and request.pool.matches(self._node(1))

    def _node(self, number: int) -> Node:
        return Node(
            name=future_name(self.name, number),
            labels=self.labels,
            taints=self.taints,
            allocatable={self.gpu_resource: self.gpus_per_node},
        )


def future_nodes(pools: Iterable[ElasticPool], inventory: Inventory) -> dict[str, Node]:
    """Return all nodes that elastic pools can still get, by name."""
    return {node.name: node for pool in pools for node in pool.future(inventory)}


def serving(pools: Iterable[ElasticPool], request: Request) -> list[ElasticPool]:
    """Return the elastic pools whose nodes the pods of a job can use."""
    return [pool for pool in pools if request.gpus and pool.serves(request)]
