"""EASY backfill: a job may pass the blocked head of its pool if the head cannot start later because of it.

After Lifka, "The ANL/IBM SP Scheduling System" (1995): the head has a reservation at the earliest moment at which the
running jobs' time limits guarantee it a place. A job passes if its own limit ends before that moment, or if the head
still fits then beside it.
"""

from __future__ import annotations

from collections.abc import Iterable

from trainyard_operator.queue.free_capacity import Room, give_back
from trainyard_operator.queue.inventory import Inventory
from trainyard_operator.queue.models import Admitted, Request
from trainyard_operator.queue.placement import place, take


class Reservation:
    """The blocked head's place in the future.

    Args:
        head: The job that does not fit now.
        room: What is free now.
        inventory: Where the pods of running jobs are.
        running: Every job that holds GPUs.
    """

    def __init__(self, head: Request, room: Room, inventory: Inventory, running: Iterable[Admitted]) -> None:
        self._head = head
        self.seconds: float | None = None
        """Seconds until the head is sure to fit; None where no limit says so."""
        self._free_then = room.free(head.pool)
        limited = [(job.limit, job.request.uid, job) for job in running if job.limit is not None]
        for limit, _, job in sorted(limited, key=lambda entry: entry[:2]):
            if job.request.pool.resource == head.pool.resource:
                give_back(self._free_then, inventory, job)
            if place(self._free_then, gpus=head.gpus, nodes=head.nodes) is not None:
                self.seconds = limit
                break

    def lets_pass(self, request: Request, placement: tuple[str, ...]) -> bool:
        """Whether a job that would go there now leaves the head its place."""
        if self.seconds is None or request.seconds is None:
            return False
        if request.seconds <= self.seconds:
            return True
        beside = dict(self._free_then)
        take(beside, placement, request.gpus)
        return place(beside, gpus=self._head.gpus, nodes=self._head.nodes) is not None

    def passed(self, request: Request, placement: tuple[str, ...]) -> None:
        """A job was let past: where it outlasts the reservation, its GPUs are not there then."""
        if self.seconds is not None and request.seconds is not None and request.seconds > self.seconds:
            take(self._free_then, placement, request.gpus)
