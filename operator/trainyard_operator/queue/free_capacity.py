"""The GPUs that are left during one round: what pods hold is gone, and so is what was promised to jobs without pods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from trainyard_operator.queue.inventory import Inventory
from trainyard_operator.queue.models import Admitted, Request
from trainyard_operator.queue.placement import give, place, reserve, slots, take
from trainyard_operator.queue.pool import Pool


class Room:
    """Free GPUs by node; pools that share nodes share them here, too.

    Args:
        inventory: The nodes and what pods hold of them.
        admitted: Every job that was let in; what is meant for its pods that are not bound yet is held back.
    """

    def __init__(self, inventory: Inventory, admitted: Iterable[Admitted]) -> None:
        self._inventory = inventory
        self._views: dict[Pool, tuple[str, ...]] = {}
        self._free: dict[str, dict[str, int]] = {}
        incomplete = [(job.request, pods) for job in admitted if job.request.gpus and (pods := unbound(inventory, job))]
        for request, pods in sorted(incomplete, key=lambda each: each[0].order):
            free = self._resource(request.pool)
            view = {node: free[node] for node in self._nodes(request.pool)}
            reserve(view, pods, request.gpus)
            free |= view

    def free(self, pool: Pool) -> dict[str, int]:
        """GPUs left on each open node of a pool, a copy."""
        free = self._resource(pool)
        return {node: free[node] for node in self._nodes(pool)}

    def place(self, request: Request) -> tuple[str, ...] | None:
        """Where a gang would go now."""
        if not request.gpus:
            return ("",) * request.nodes
        return place(self.free(request.pool), gpus=request.gpus, nodes=request.nodes)

    def could_ever(self, request: Request) -> bool:
        """Whether the pool's nodes would hold the gang if they were empty and open."""
        return not request.gpus or slots(self._inventory.most(request.pool), request.gpus) >= request.nodes

    def take(self, request: Request, placement: Sequence[str]) -> None:
        """Hold the GPUs of a gang that was just let in."""
        if request.gpus:
            take(self._resource(request.pool), placement, request.gpus)

    def _resource(self, pool: Pool) -> dict[str, int]:
        if pool.resource not in self._free:
            self._free[pool.resource] = self._inventory.left(pool.resource)
        return self._free[pool.resource]

    def _nodes(self, pool: Pool) -> tuple[str, ...]:
        if pool not in self._views:
            nodes = self._inventory.nodes.values()
            usable = (node for node in nodes if node.open and node.allocatable.get(pool.resource) and pool.has(node))
            self._views[pool] = tuple(sorted(node.name for node in usable))
        return self._views[pool]


def unbound(inventory: Inventory, job: Admitted) -> list[str]:
    """The node meant for each pod of a job that is not bound yet; none of a job that is on its way out."""
    if job.leaving:
        return []
    bound = inventory.bound(job.request.owner)
    missing = job.request.nodes - (sum(bound.values()) if bound else 0) - job.done
    if missing <= 0:
        return []
    meant = list((Counter(job.placement) - Counter(bound)).elements())
    return (meant + [""] * missing)[:missing]


def held_by(inventory: Inventory, job: Admitted) -> list[str]:
    """The node of each pod whose GPUs come back when a job is gone: bound ones, and those held back for it."""
    bound = [node for node, pods in inventory.bound(job.request.owner).items() for _ in range(pods)]
    return bound + unbound(inventory, job)


def give_back(free: dict[str, int], inventory: Inventory, job: Admitted) -> None:
    """Mark a job's GPUs as free, in place."""
    give(free, held_by(inventory, job), job.request.gpus)
