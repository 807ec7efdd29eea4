"""Preemption: the running jobs that a blocked head replaces: of lower priority, as few and as young as possible."""

from __future__ import annotations

from collections.abc import Iterable

from trainyard_operator.queue.free_capacity import FreeCapacity, release
from trainyard_operator.queue.inventory import Inventory
from trainyard_operator.queue.models import Admitted, Request
from trainyard_operator.queue.placement import place


def victims(
    head: Request, capacity: FreeCapacity, inventory: Inventory, running: Iterable[Admitted]
) -> list[Admitted] | None:
    """Choose the jobs to suspend so that the head fits.

    Candidates are ordered by priority, then the most recently admitted first: it loses the least work. Afterwards
    every job whose GPUs are not needed after all is spared, the most valuable first.

    Returns:
        The jobs to suspend; empty if jobs that already release their GPUs free enough; None if even all candidates
        together would not.
    """
    free = capacity.free(head.pool)
    candidates = list[Admitted]()
    for job in running:
        if job.request.pool.resource != head.pool.resource or not job.request.gpus:
            continue
        if job.releasing:
            release(free, inventory, job)
        elif job.request.preemptible and job.request.priority < head.priority:
            candidates.append(job)
    candidates.sort(key=lambda job: (job.request.priority, -job.admitted_at.timestamp(), job.request.uid))
    chosen = list[Admitted]()
    for job in candidates:
        if _fits(head, free, inventory, chosen):
            break
        chosen.append(job)
    if not _fits(head, free, inventory, chosen):
        return None
    return _spare(head, free, inventory, chosen)


def _spare(head: Request, free: dict[str, int], inventory: Inventory, chosen: list[Admitted]) -> list[Admitted]:
    """Drop every job from `chosen` without which the head still fits."""
    for job in reversed(chosen):
        without = [other for other in chosen if other is not job]
        if _fits(head, free, inventory, without):
            chosen = without
    return chosen


def _fits(head: Request, free: dict[str, int], inventory: Inventory, released: list[Admitted]) -> bool:
    left = dict(free)
    for job in released:
        release(left, inventory, job)
    return place(left, gpus=head.gpus, nodes=head.nodes) is not None
