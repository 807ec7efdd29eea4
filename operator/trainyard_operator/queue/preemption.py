"""Which running jobs a blocked one may replace: of strictly lower priority, as few and as young as possible."""

from __future__ import annotations

from collections.abc import Iterable

from trainyard_operator.queue.free_capacity import Room, give_back
from trainyard_operator.queue.inventory import Inventory
from trainyard_operator.queue.models import Admitted, Request
from trainyard_operator.queue.placement import place


def victims(head: Request, room: Room, inventory: Inventory, running: Iterable[Admitted]) -> list[Admitted] | None:
    """The jobs to suspend so that the head fits.

    The lowest priority goes first, and within one the job that was admitted last, which has the least to lose. Then
    every job that need not go after all is spared, the most valuable first.

    Returns:
        The jobs; none when those that are on their way out anyway make enough room; None when even all lower ones
        would not.
    """
    same = [job for job in running if job.request.pool.resource == head.pool.resource and job.request.gpus]
    free = room.free(head.pool)
    for job in same:
        if job.leaving:
            give_back(free, inventory, job)
    lower = [job for job in same if not job.leaving and job.request.priority < head.priority]
    lower.sort(key=lambda job: (job.request.priority, -job.since.timestamp(), job.request.uid))
    chosen = list[Admitted]()
    for job in lower:
        if _fits(head, free, inventory, chosen):
            break
        chosen.append(job)
    if not _fits(head, free, inventory, chosen):
        return None
    for job in reversed(chosen):
        without = [other for other in chosen if other is not job]
        if _fits(head, free, inventory, without):
            chosen = without
    return chosen


def _fits(head: Request, free: dict[str, int], inventory: Inventory, gone: list[Admitted]) -> bool:
    left = dict(free)
    for job in gone:
        give_back(left, inventory, job)
    return place(left, gpus=head.gpus, nodes=head.nodes) is not None
