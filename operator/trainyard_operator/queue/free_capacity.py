"""GPUs that are free during one admission cycle, less what is held for admitted jobs whose pods are not bound yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from trainyard_operator.queue.inventory import Inventory
from trainyard_operator.queue.models import Admitted, Request
from trainyard_operator.queue.placement import give, place, reserve, slots, take
from trainyard_operator.queue.pool import Pool


class FreeCapacity:
    """Free GPUs by node; pools that share nodes share their GPUs.

    Args:
        inventory: The nodes and their pods.
        admitted: Every admitted job; GPUs for its unbound pods count as taken.
    """

    def __init__(self, inventory: Inventory, admitted: Iterable[Admitted]) -> None:
        self._inventory = inventory
        self._pool_nodes: dict[Pool, tuple[str, ...]] = {}
        self._free: dict[str, dict[str, int]] = {}
        with_gpus = (job for job in admitted if job.request.gpus)
        incomplete = [(job.request, pods) for job in with_gpus if (pods := unbound_pods(inventory, job))]
        for request, pods in sorted(incomplete, key=lambda each: each[0].order):
            free = self.free(request.pool)
            reserve(free, pods, request.gpus)
            self._resource(request.pool).update(free)

    def free(self, pool: Pool) -> dict[str, int]:
        """Return a copy of the free GPUs of each schedulable node of a pool."""
        free = self._resource(pool)
        return {node: free[node] for node in self._nodes(pool)}

    def place(self, request: Request) -> tuple[str, ...] | None:
        """Return the placement of a gang now; None if it does not fit."""
        if not request.gpus:
            return ("",) * request.nodes
        return place(self.free(request.pool), gpus=request.gpus, nodes=request.nodes)

    def fits_when_empty(self, request: Request) -> bool:
        """Return whether the pool could hold the gang if all its nodes were empty and schedulable."""
        return not request.gpus or slots(self._inventory.capacity(request.pool), request.gpus) >= request.nodes

    def take(self, request: Request, placement: Sequence[str]) -> None:
        """Mark the GPUs of a newly admitted gang as taken."""
        if request.gpus:
            take(self._resource(request.pool), placement, request.gpus)

    def _resource(self, pool: Pool) -> dict[str, int]:
        if pool.resource not in self._free:
            self._free[pool.resource] = self._inventory.free(pool.resource)
        return self._free[pool.resource]

    def _nodes(self, pool: Pool) -> tuple[str, ...]:
        if pool not in self._pool_nodes:
            schedulable = (node for node in self._inventory.nodes.values() if node.schedulable)
            usable = (node for node in schedulable if node.allocatable.get(pool.resource) and pool.matches(node))
            self._pool_nodes[pool] = tuple(sorted(node.name for node in usable))
        return self._pool_nodes[pool]


def unbound_pods(inventory: Inventory, job: Admitted) -> list[str]:
    """Return the planned node of each pod that is not bound yet; empty for a job that releases its GPUs."""
    if job.releasing:
        return []
    bound = inventory.bound(job.request.owner)
    missing = job.request.nodes - (sum(bound.values()) if bound else 0) - job.succeeded_pods
    if missing <= 0:
        return []
    planned = list((Counter(job.placement) - Counter(bound)).elements())
    return (planned + [""] * missing)[:missing]


def occupied_nodes(inventory: Inventory, job: Admitted) -> list[str]:
    """Return the node of each pod whose GPUs become free when a job ends: bound pods and unbound ones."""
    bound = [node for node, pods in inventory.bound(job.request.owner).items() for _ in range(pods)]
    return bound + unbound_pods(inventory, job)


def release(free: dict[str, int], inventory: Inventory, job: Admitted) -> None:
    """Mark the GPUs of a job as free, in place."""
    give(free, occupied_nodes(inventory, job), job.request.gpus)
