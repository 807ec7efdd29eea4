"""When a waiting job will start: the queue played forward by the times that jobs are expected to take."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from trainyard_operator.queue.free_capacity import Room, held_by
from trainyard_operator.queue.inventory import Inventory
from trainyard_operator.queue.models import Admitted, Basis, Expectation, Request
from trainyard_operator.queue.placement import place
from trainyard_operator.queue.pool import Pool

DEPTH = 50
"""Waiting jobs of a pool that are estimated; further back an estimate says nothing."""
_SUREST_FIRST = list(Basis)


def expected_run(past: Iterable[float], spent: float) -> float:
    """Seconds that a job is expected to run in all, by how long earlier ones ran.

    The median of those that ran longer than it has run already: short jobs end first, so that the ends seen so far say
    too little of those that go on. One that outlasts all of them is given as long again.

    Args:
        past: How long earlier jobs ran.
        spent: How long this one has run.
    """
    longer = [seconds for seconds in past if seconds > spent]
    return median(longer) if longer else 2.0 * spent


def estimates(waiting: Sequence[Request], admitted: Sequence[Admitted], inventory: Inventory) -> dict[str, Expectation]:
    """Seconds until each waiting job starts, and the least sure thing that rests on; where nobody can tell, nothing.

    The play follows the strict order of every pool, without backfill and preemption, which only move jobs forward.

    Args:
        waiting: The jobs that wait, in order.
        admitted: Every job that was let in.
        inventory: The nodes and the pods on them.
    """
    return _Play(waiting, admitted, inventory).run()


@dataclass(order=True)
class _End:
    seconds: float
    number: int
    basis: Basis = field(compare=False)
    resource: str = field(compare=False)
    nodes: Sequence[str] = field(compare=False)
    gpus: int = field(compare=False)


class _Play:
    def __init__(self, waiting: Sequence[Request], admitted: Sequence[Admitted], inventory: Inventory) -> None:
        room = Room(inventory, admitted)
        self._queues: dict[Pool, list[Request]] = {}
        for request in waiting:
            queue = self._queues.setdefault(request.pool, [])
            if len(queue) < DEPTH:
                queue.append(request)
        self._nodes = {pool: list(room.free(pool)) for pool in self._queues}
        self._free: dict[str, dict[str, int]] = {}
        for pool in self._queues:
            self._free.setdefault(pool.resource, {}).update(room.free(pool))
        self._ends: list[_End] = []
        self._count = 0
        for job in admitted:
            self._push(job.request, held_by(inventory, job), job.remaining, 0.0)
        self._found: dict[str, Expectation] = {}

    def run(self) -> dict[str, Expectation]:
        now, basis = 0.0, Basis.PROGRESS
        self._start_all(now, basis)
        while self._ends and any(self._queues.values()):
            end = heapq.heappop(self._ends)
            now, basis = end.seconds, max(basis, end.basis, key=_SUREST_FIRST.index)
            free = self._free.get(end.resource, {})
            for node in end.nodes:
                if node in free:
                    free[node] += end.gpus
            if not self._ends or self._ends[0].seconds > now:
                self._start_all(now, basis)
        return self._found

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
        self._found[request.uid] = Expectation(now, basis)
        self._push(request, tuple(placement), request.expected, now)
        return True

    def _push(self, request: Request, nodes: Sequence[str], expected: Expectation | None, now: float) -> None:
        if expected is not None and request.gpus:
            self._count += 1
            end = now + expected.seconds
            resource = request.pool.resource
            heapq.heappush(self._ends, _End(end, self._count, expected.basis, resource, nodes, request.gpus))
