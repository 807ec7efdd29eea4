"""One admission round: everything that waits, in order, against the GPUs that are left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from trainyard_operator.queue import reasons
from trainyard_operator.queue.backfill import Reservation
from trainyard_operator.queue.free_capacity import Room
from trainyard_operator.queue.inventory import Inventory
from trainyard_operator.queue.models import Admitted, Request, in_order
from trainyard_operator.queue.policy import Policy
from trainyard_operator.queue.pool import Pool
from trainyard_operator.queue.preemption import victims
from trainyard_operator.queue.quota import Headroom, Quotas
from trainyard_operator.queue.reasons import Reason


@dataclass(frozen=True, kw_only=True)
class Start:
    """A job that may start.

    Attributes:
        request: Which.
        placement: The node meant for each of its pods.
        passed: Whether it passes a blocked job (backfill).
    """

    request: Request
    placement: tuple[str, ...]
    passed: bool = False


@dataclass(kw_only=True)
class Outcome:
    """What a round decided.

    Attributes:
        starts: Jobs let in, in order.
        waiting: Jobs that wait on, in order; those that could never fit are not among them.
        reasons: Why each of the others waits, by UID.
        apart: UIDs of those among them that hold up nobody.
        preempt: UIDs of running jobs to suspend.
    """

    starts: list[Start] = field(default_factory=list)
    waiting: list[Request] = field(default_factory=list)
    reasons: dict[str, Reason] = field(default_factory=dict)
    apart: set[str] = field(default_factory=set)
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
    """Let in what may start now.

    A job that does not fit blocks those behind it in its pool, whatever their size, so that a large one is not passed
    for ever by small ones. What can never fit, what its namespace's limits keep out and what waits after a failed
    start blocks nobody.
    """
    return _Round(list(admitted), inventory, policy, now, quotas or Quotas()).run(in_order(requests))


class _Round:
    def __init__(
        self, admitted: list[Admitted], inventory: Inventory, policy: Policy, now: datetime, quotas: Quotas
    ) -> None:
        self._running = admitted
        self._inventory, self._policy, self._now = inventory, policy, now
        self._room = Room(inventory, admitted)
        self._headroom = Headroom(quotas, admitted)
        self._used: Counter[str] = Counter()
        for job in admitted:
            self._used[job.request.namespace] += job.request.total
        self._heads: dict[Pool, Reservation | None] = {}
        self._ever: dict[tuple[Pool, int, int], bool] = {}
        self._too_large: set[tuple[Pool, int, int]] = set()
        self._outcome = Outcome()

    def run(self, requests: list[Request]) -> Outcome:
        for request in requests:
            reason = self._consider(request)
            if reason is not None:
                self._outcome.reasons[request.uid] = reason
                if reason.word != "ExceedsCapacity":
                    self._outcome.waiting.append(request)
        return self._outcome

    def _consider(self, request: Request) -> Reason | None:
        """Let a job in, or say why not."""
        if not self._fits_ever(request):
            return self._exceeds(request)
        if self._policy.held:
            return reasons.held()
        kept_out = self._kept_out(request)
        if kept_out is not None:
            self._outcome.apart.add(request.uid)
            return kept_out
        if request.pool in self._heads and not self._policy.backfill:
            return reasons.behind()
        return self._try(request)

    def _fits_ever(self, request: Request) -> bool:
        kind = (request.pool, request.gpus, request.nodes)
        if kind not in self._ever:
            self._ever[kind] = self._room.could_ever(request)
        return self._ever[kind]

    def _exceeds(self, request: Request) -> Reason:
        return reasons.exceeds_capacity(request, self._inventory.most(request.pool))

    def _kept_out(self, request: Request) -> Reason | None:
        refusal = self._headroom.refusal(request)
        if refusal is not None:
            return refusal
        if request.not_before is not None and request.not_before > self._now:
            return reasons.backing_off(request.not_before, request.setback)
        cap, used = self._policy.cap(request.namespace), self._used[request.namespace]
        if cap is not None and used + request.total > cap:
            return reasons.namespace_cap(request, cap, used)
        return None

    def _try(self, request: Request) -> Reason | None:
        kind = (request.pool, request.gpus, request.nodes)
        blocked = request.pool in self._heads
        placement = None if kind in self._too_large else self._room.place(request)
        if placement is None:
            self._too_large.add(kind)  # what does not fit now does not fit later in the round, either
            return reasons.behind() if blocked else self._block(request)
        if blocked and not self._may_pass(request, placement):
            return reasons.behind()
        self._let_in(request, placement, passed=blocked)
        return None

    def _may_pass(self, request: Request, placement: tuple[str, ...]) -> bool:
        reservation = self._heads[request.pool]
        if reservation is None or not reservation.lets_pass(request, placement):
            return False
        reservation.passed(request, placement)
        return True

    def _let_in(self, request: Request, placement: tuple[str, ...], *, passed: bool) -> None:
        self._room.take(request, placement)
        self._headroom.take(request)
        self._used[request.namespace] += request.total
        self._outcome.starts.append(Start(request=request, placement=placement, passed=passed))
        limit = request.seconds
        self._running.append(Admitted(request=request, placement=placement, since=self._now, limit=limit))

    def _block(self, head: Request) -> Reason:
        """The first of its pool that does not fit: the others wait behind it."""
        reservation = None
        if self._policy.backfill:
            reservation = Reservation(head, self._room, self._inventory, self._running)
        self._heads[head.pool] = reservation
        chosen = victims(head, self._room, self._inventory, self._running) if self._policy.preemption else None
        if chosen is None:
            return reasons.no_room(head, self._room.free(head.pool))
        self._preempt(chosen)
        return reasons.preempting(len(chosen)) if chosen else reasons.making_room()

    def _preempt(self, chosen: list[Admitted]) -> None:
        """Let jobs go; the head of another pool must not count on the same ones."""
        gone = {job.request.uid for job in chosen}
        self._outcome.preempt += sorted(gone)
        self._running = [replace(job, leaving=True) if job.request.uid in gone else job for job in self._running]
