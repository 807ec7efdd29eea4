"""One admission cycle: all waiting requests, in order, against the free capacity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from trainyard_operator.queue import reasons
from trainyard_operator.queue.backfill import Reservation
from trainyard_operator.queue.free_capacity import FreeCapacity
from trainyard_operator.queue.inventory import Inventory
from trainyard_operator.queue.models import Admitted, Request, in_order
from trainyard_operator.queue.policy import Policy
from trainyard_operator.queue.pool import Pool
from trainyard_operator.queue.preemption import victims
from trainyard_operator.queue.quota import Headroom, Quotas
from trainyard_operator.queue.reasons import Reason


@dataclass(frozen=True, kw_only=True)
class Start:
    """A job that the cycle admits.

    Attributes:
        request: Its request.
        placement: The node planned for each pod.
        backfilled: Whether it passes a blocked job.
    """

    request: Request
    placement: tuple[str, ...]
    backfilled: bool = False


@dataclass(kw_only=True)
class Outcome:
    """Result of one cycle.

    Attributes:
        starts: Admitted jobs, in order.
        waiting: Jobs that keep waiting, in order, without those that exceed the pool's capacity.
        reasons: Why each job that was not admitted waits, by UID.
        nonblocking: UIDs of waiting jobs that block no other job.
        preempt: UIDs of running jobs to suspend.
    """

    starts: list[Start] = field(default_factory=list)
    waiting: list[Request] = field(default_factory=list)
    reasons: dict[str, Reason] = field(default_factory=dict)
    nonblocking: set[str] = field(default_factory=set)
    preempt: list[str] = field(default_factory=list)


def admit(
    requests: Iterable[Request],
    admitted: Iterable[Admitted],
    inventory: Inventory,
    policy: Policy,
    now: datetime,
    *,
    quotas: Quotas | None = None,
) -> Outcome:
    """Decide which waiting jobs start now.

    A job that does not fit blocks all jobs behind it in its pool, so that small jobs cannot starve a large one. Jobs
    that exceed the pool, exceed a limit of their namespace or back off after a failed start block no other job.
    """
    return _Cycle(list(admitted), inventory, policy, now, quotas or Quotas()).run(in_order(requests))


class _Cycle:
    def __init__(
        self, admitted: list[Admitted], inventory: Inventory, policy: Policy, now: datetime, quotas: Quotas
    ) -> None:
        self._running = admitted
        self._inventory, self._policy, self._now = inventory, policy, now
        self._capacity = FreeCapacity(inventory, admitted, policy.elastic_pools)
        self._headroom = Headroom(quotas, admitted)
        self._used: Counter[str] = Counter()
        for job in admitted:
            self._used[job.request.namespace] += job.request.total
        self._heads: dict[Pool, Reservation | None] = {}
        self._fits_when_empty: dict[tuple[Pool, int, int], bool] = {}
        self._too_large: set[tuple[Pool, int, int]] = set()
        self._outcome = Outcome()

    def run(self, requests: list[Request]) -> Outcome:
        for request in requests:
            reason = self._consider(request)
            if reason is not None:
                self._outcome.reasons[request.uid] = reason
                if reason.code != "ExceedsCapacity":
                    self._outcome.waiting.append(request)
        return self._outcome

    def _consider(self, request: Request) -> Reason | None:
        """Admit a job, or return why it waits."""
        if not self._can_ever_fit(request):
            return self._exceeds_capacity(request)
        if self._policy.held:
            return reasons.queue_held()
        inadmissible = self._inadmissible(request)
        if inadmissible is not None:
            self._outcome.nonblocking.add(request.uid)
            return inadmissible
        if request.pool in self._heads and not self._policy.backfill:
            return reasons.behind_head()
        return self._try(request)

    def _can_ever_fit(self, request: Request) -> bool:
        shape = _shape(request)
        if shape not in self._fits_when_empty:
            self._fits_when_empty[shape] = self._capacity.fits_when_empty(request)
        return self._fits_when_empty[shape]

    def _exceeds_capacity(self, request: Request) -> Reason:
        capacity = self._capacity.capacity(request.pool)
        return reasons.exceeds_capacity(request, capacity, {} if capacity else self._inventory.mismatches(request.pool))

    def _inadmissible(self, request: Request) -> Reason | None:
        """Return the limit of the namespace, or the backoff, that excludes a job from this cycle."""
        refusal = self._headroom.refusal(request)
        if refusal is not None:
            return refusal
        if request.not_before is not None and request.not_before > self._now:
            return reasons.backing_off(request.not_before, request.backoff_cause)
        cap, used = self._policy.cap(request.namespace), self._used[request.namespace]
        if cap is not None and used + request.total > cap:
            return reasons.namespace_cap(request, cap, used)
        return None

    def _try(self, request: Request) -> Reason | None:
        shape, blocked = _shape(request), request.pool in self._heads
        placement = None if shape in self._too_large else self._capacity.place(request)
        if placement is None:
            self._too_large.add(shape)  # free capacity only shrinks during a cycle
            return reasons.behind_head() if blocked else self._block(request)
        if blocked and not self._may_backfill(request, placement):
            return reasons.behind_head()
        self._admit(request, placement, backfilled=blocked)
        return None

    def _may_backfill(self, request: Request, placement: tuple[str, ...]) -> bool:
        reservation = self._heads[request.pool]
        if reservation is None or not reservation.allows(request, placement):
            return False
        reservation.record(request, placement)
        return True

    def _admit(self, request: Request, placement: tuple[str, ...], *, backfilled: bool) -> None:
        self._capacity.take(request, placement)
        self._headroom.take(request)
        self._used[request.namespace] += request.total
        self._outcome.starts.append(Start(request=request, placement=placement, backfilled=backfilled))
        self._running.append(
            Admitted(request=request, placement=placement, admitted_at=self._now, time_limit=request.time_limit)
        )

    def _block(self, head: Request) -> Reason:
        """Make a job that does not fit the head of its pool: the jobs behind it wait."""
        reservation = None
        if self._policy.backfill:
            reservation = Reservation(head, self._capacity, self._inventory, self._running)
        self._heads[head.pool] = reservation
        chosen = victims(head, self._capacity, self._inventory, self._running) if self._policy.preemption else None
        if chosen is None:
            closed = self._inventory.closed(head.pool)
            return reasons.insufficient_gpus(head, self._capacity.free(head.pool), closed)
        self._preempt(chosen)
        return reasons.preempting(len(chosen)) if chosen else reasons.waiting_for_release()

    def _preempt(self, chosen: list[Admitted]) -> None:
        """Mark jobs as releasing, so that the head of another pool does not choose them as well."""
        preempted = {job.request.uid for job in chosen}
        self._outcome.preempt += sorted(preempted)
        self._running = [replace(job, releasing=True) if job.request.uid in preempted else job for job in self._running]


def _shape(request: Request) -> tuple[Pool, int, int]:
    return request.pool, request.gpus, request.nodes
