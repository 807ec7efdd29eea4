"""EASY backfill: a job may pass the blocked head of its pool if that cannot delay the head.

After Lifka, "The ANL/IBM SP Scheduling System" (1995): the head has a reservation at the earliest moment at which the
time limits of running jobs guarantee enough GPUs. A job passes if its own limit ends before that moment, or if the
head still fits beside it then.
"""

from __future__ import annotations

from collections.abc import Iterable

from trainyard_operator.queue.free_capacity import FreeCapacity, release
from trainyard_operator.queue.inventory import Inventory
from trainyard_operator.queue.models import Admitted, Request
from trainyard_operator.queue.placement import place, take


class Reservation:
    """The guaranteed start of a blocked head.

    Args:
        head: The job that does not fit now.
        capacity: Free capacity of this cycle.
        inventory: Where the pods of running jobs are.
        running: Every job that holds GPUs.

    Attributes:
        seconds: Seconds until the head fits; None if no time limits guarantee it.
    """

    def __init__(
        self, head: Request, capacity: FreeCapacity, inventory: Inventory, running: Iterable[Admitted]
    ) -> None:
        self._head = head
        self.seconds: float | None = None
        self._free_then = capacity.free(head.pool)
        limited = [(job.time_limit, job.request.uid, job) for job in running if job.time_limit is not None]
        for limit, _, job in sorted(limited, key=lambda entry: entry[:2]):
            if job.request.pool.resource == head.pool.resource:
                release(self._free_then, inventory, job)
            if place(self._free_then, gpus=head.gpus, nodes=head.nodes) is not None:
                self.seconds = limit
                break

    def allows(self, request: Request, placement: tuple[str, ...]) -> bool:
        """Return whether a job started on `placement` now leaves the head its reservation."""
        if self.seconds is None or request.time_limit is None:
            return False
        if request.time_limit <= self.seconds:
            return True
        beside = dict(self._free_then)
        take(beside, placement, request.gpus)
        return place(beside, gpus=self._head.gpus, nodes=self._head.nodes) is not None

    def record(self, request: Request, placement: tuple[str, ...]) -> None:
        """Account for a job that passed the head, where it outlasts the reservation."""
        if self.seconds is not None and request.time_limit is not None and request.time_limit > self.seconds:
            take(self._free_then, placement, request.gpus)
