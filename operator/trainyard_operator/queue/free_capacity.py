"""GPUs that are free during one admission cycle, less what is held for admitted jobs whose pods are not bound yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

from trainyard_operator.queue.elastic import ElasticPool, future_nodes
from trainyard_operator.queue.inventory import Inventory
from trainyard_operator.queue.models import Admitted, Request
from trainyard_operator.queue.placement import give, is_future, place, reserve_anywhere, reserve_planned, slots, take
from trainyard_operator.queue.pool import Pool


class FreeCapacity:
    """Free GPUs by node; pools that share nodes share their GPUs.

    Args:
        inventory: The nodes and their pods.
        admitted: Every admitted job; GPUs for its unbound pods count as taken.
        elastic: Elastic pools; the nodes that they can still get count as free nodes.
    """

    def __init__(self, inventory: Inventory, admitted: Iterable[Admitted], elastic: Iterable[ElasticPool] = ()) -> None:
        self._inventory, self._future = inventory, future_nodes(elastic, inventory)
        self._pool_nodes: dict[Pool, tuple[str, ...]] = {}
        self._free: dict[str, dict[str, int]] = {}
        with_gpus = (job for job in admitted if job.request.gpus)
        incomplete = [(job.request, pods) for job in with_gpus if (pods := unbound_pods(inventory, job))]
        displaced = [(request, self._reserve_planned(request, pods)) for request, pods in incomplete]
        # Planned nodes first: a pod without one must not take the GPUs of another. Large pods next: they fit fewest.
        for request, count in sorted(displaced, key=lambda each: (-each[0].gpus, each[0].order)):
            free = self.free(request.pool)
            reserve_anywhere(free, count, request.gpus)
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
        return not request.gpus or slots(self.capacity(request.pool), request.gpus) >= request.nodes

    def capacity(self, pool: Pool) -> list[int]:
        """Return the GPUs of each node of a pool, schedulable or not, existing or not."""
        future = (node.allocatable.get(pool.resource, 0) for node in self._future.values() if pool.matches(node))
        return [*self._inventory.capacity(pool), *filter(None, future)]

    def take(self, request: Request, placement: Sequence[str]) -> None:
        """Mark the GPUs of a newly admitted gang as taken."""
        if request.gpus:
            take(self._resource(request.pool), placement, request.gpus)

    def _reserve_planned(self, request: Request, pods: Sequence[str]) -> int:
        """Take GPUs on the planned nodes of pods; return how many pods have none or do not fit there."""
        free = self.free(request.pool)
        displaced = reserve_planned(free, pods, request.gpus)
        self._resource(request.pool).update(free)
        return displaced

    def _resource(self, pool: Pool) -> dict[str, int]:
        if pool.resource not in self._free:
            future = {name: node.allocatable.get(pool.resource, 0) for name, node in self._future.items()}
            self._free[pool.resource] = self._inventory.free(pool.resource) | future
        return self._free[pool.resource]

    def _nodes(self, pool: Pool) -> tuple[str, ...]:
        if pool not in self._pool_nodes:
            every = chain(self._inventory.nodes.values(), self._future.values())
            schedulable = (node for node in every if node.schedulable)
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
    # A pod that waits for a new node takes any GPU that becomes free before.
    existing = Counter(node for node in job.placement if not is_future(node))
    planned = list((existing - Counter(bound)).elements())
    return (planned + [""] * missing)[:missing]


def occupied_nodes(inventory: Inventory, job: Admitted) -> list[str]:
    """Return the node of each pod whose GPUs become free when a job ends: bound pods and unbound ones."""
    bound = [node for node, pods in inventory.bound(job.request.owner).items() for _ in range(pods)]
    return bound + unbound_pods(inventory, job)


def release(free: dict[str, int], inventory: Inventory, job: Admitted) -> None:
    """Mark the GPUs of a job as free, in place."""
    give(free, occupied_nodes(inventory, job), job.request.gpus)
