"""Expected start of each waiting job: a simulation of the queue with the expected runs of all jobs."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from trainyard_operator.queue.elastic import ElasticPool
from trainyard_operator.queue.free_capacity import FreeCapacity, occupied_nodes
from trainyard_operator.queue.inventory import Inventory
from trainyard_operator.queue.models import Admitted, Basis, Estimate, Request
from trainyard_operator.queue.placement import place
from trainyard_operator.queue.pool import Pool

DEPTH = 50
"""Waiting jobs of a pool that get an estimate; further back it would be too inaccurate."""
_MOST_RELIABLE_FIRST = list(Basis)


def expected_run(past: Iterable[float], elapsed: float) -> float:
    """Return the expected duration of a run in seconds, from the durations of earlier runs.

    The median of the runs that were longer than `elapsed`: short runs end first, so all runs seen so far would
    underestimate the ones that continue. A run that is longer than all of them is expected to take twice its time.

    Args:
        past: Durations of earlier runs.
        elapsed: How long this one has run.
    """
    longer = [seconds for seconds in past if seconds > elapsed]
    return median(longer) if longer else 2.0 * elapsed


def estimates(
    waiting: Sequence[Request],
    admitted: Sequence[Admitted],
    inventory: Inventory,
    elastic: Iterable[ElasticPool] = (),
) -> dict[str, Estimate]:
    """Return the seconds until each waiting job starts, and the weakest basis involved; jobs without one are omitted.

    The simulation follows the strict order of every pool. It ignores backfill and preemption, which only start jobs
    earlier.

    Args:
        waiting: The waiting jobs, in order.
        admitted: Every admitted job.
        inventory: The nodes and their pods.
        elastic: Elastic pools, whose future nodes take jobs as well.
    """
    return _Simulation(waiting, admitted, FreeCapacity(inventory, admitted, elastic), inventory).run()


@dataclass(order=True)
class _End:
    seconds: float
    number: int
    basis: Basis = field(compare=False)
    resource: str = field(compare=False)
    nodes: Sequence[str] = field(compare=False)
    gpus: int = field(compare=False)


class _Simulation:
    def __init__(
        self,
        waiting: Sequence[Request],
        admitted: Sequence[Admitted],
        capacity: FreeCapacity,
        inventory: Inventory,
    ) -> None:
        self._queues: dict[Pool, list[Request]] = {}
        for request in waiting:
            queue = self._queues.setdefault(request.pool, [])
            if len(queue) < DEPTH:
                queue.append(request)
        self._nodes = {pool: list(capacity.free(pool)) for pool in self._queues}
        self._free: dict[str, dict[str, int]] = {}
        for pool in self._queues:
            self._free.setdefault(pool.resource, {}).update(capacity.free(pool))
        self._ends: list[_End] = []
        self._count = 0
        for job in admitted:
            self._push_end(job.request, occupied_nodes(inventory, job), job.remaining, 0.0)
        self._starts: dict[str, Estimate] = {}

    def run(self) -> dict[str, Estimate]:
        now, basis = 0.0, Basis.PROGRESS
        self._start_all(now, basis)
        while self._ends and any(self._queues.values()):
            end = heapq.heappop(self._ends)
            now, basis = end.seconds, max(basis, end.basis, key=_MOST_RELIABLE_FIRST.index)
            free = self._free.get(end.resource, {})
            for node in end.nodes:
                if node in free:
                    free[node] += end.gpus
            if not self._ends or self._ends[0].seconds > now:
                self._start_all(now, basis)
        return self._starts

    def _start_all(self, now: float, basis: Basis) -> None:
        for pool, queue in self._queues.items():
            while queue and self._start(pool, queue[0], now, basis):
                queue.pop(0)

    def _start(self, pool: Pool, request: Request, now: float, basis: Basis) -> bool:
        free = self._free[pool.resource]
        placement: Iterable[str] | None = ()
        if request.gpus:
            view = {node: free[node] for node in self._nodes[pool]}
            placement = place(view, gpus=request.gpus, nodes=request.nodes)
        if placement is None:
            return False
        for node in placement:
            free[node] -= request.gpus
        self._starts[request.uid] = Estimate(now, basis)
        self._push_end(request, tuple(placement), request.expected_run, now)
        return True

    def _push_end(self, request: Request, nodes: Sequence[str], run: Estimate | None, now: float) -> None:
        if run is not None and request.gpus:
            self._count += 1
            end = now + run.seconds
            heapq.heappush(self._ends, _End(end, self._count, run.basis, request.pool.resource, nodes, request.gpus))
