"""The builtin admission controller: runs admission cycles one at a time and answers the reconciler."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

from trainyard_kube.resource import Key
from trainyard_operator.admission.builtin.publication import Publisher, status_fields
from trainyard_operator.admission.builtin.registry import JobRegistry, QueuedJob
from trainyard_operator.admission.builtin.view import describe, format_microseconds
from trainyard_operator.admission.candidate import Candidate, ObserveCandidate
from trainyard_operator.admission.decision import Admission
from trainyard_operator.queue import reasons
from trainyard_operator.queue.admission_cycle import admit
from trainyard_operator.queue.elastic import ElasticPool, serving
from trainyard_operator.queue.free_capacity import FreeCapacity, unbound_pods
from trainyard_operator.queue.inventory import Inventory
from trainyard_operator.queue.models import Admitted
from trainyard_operator.queue.placement import is_future, slots
from trainyard_operator.queue.policy import Policy
from trainyard_operator.queue.quota import Headroom, Quotas

Object = dict[str, Any]
_IDLE_SECONDS = 5.0
"""Seconds between cycles without events: backoffs end, estimates change."""
_DEFERRED_SECONDS = 0.5
"""Seconds until a deferred refresh of the published status, without events."""
_PAUSE, _PAUSE_WITH_QUEUE, _COST_FACTOR = 0.005, 0.05, 4.0
"""Least pause between two cycles: in seconds without and with waiting jobs (the end of one job causes several events,
and each cycle considers all waiting jobs), and in multiples of the duration of the last cycle."""


class PolicySource(Protocol):
    """Supplies the administrator's settings."""

    def current(self) -> Policy:
        """Return the settings in force."""

    def describe(self) -> Object:
        """Return the settings for the debug endpoint."""


class BuiltinAdmission:
    """Admission by the operator's own queue; implements `AdmissionController`.

    Args:
        observe: Reads a job and its children from the cache.
        add: Queues a job for reconciliation.
        now: The time.
        clock: Monotonic seconds.
        policy: The administrator's settings.
    """

    def __init__(
        self,
        *,
        observe: ObserveCandidate,
        add: Callable[[Key], None],
        now: Callable[[], datetime],
        clock: Callable[[], float],
        policy: PolicySource,
    ) -> None:
        self._add, self._now, self._clock, self._policy = add, now, clock, policy
        self.inventory, self.quotas = Inventory(), Quotas()
        self._registry = JobRegistry(observe, now)
        self._publisher = Publisher(self._registry, self.inventory, add=add, now=now, clock=clock)
        self._changed = asyncio.Event()
        self._applied = Policy()

    # --- changes ------------------------------------------------------------------------------------------------------

    def mark_dirty(self, key: Key) -> None:
        """Note that a job or its children changed."""
        self._registry.mark_dirty(key)
        self._changed.set()

    def capacity_changed(self) -> None:
        """Note that the inventory or the quotas changed."""
        self._changed.set()

    def observe_workload(self, workload: Object) -> None:
        """Ignore a Kueue Workload."""

    # --- decisions ----------------------------------------------------------------------------------------------------

    def is_admitted_pending(self, key: Key) -> bool:
        """Return whether a job is admitted and its child Job has yet to be created or resumed."""
        job = self._registry.find(key)
        return job is not None and job.grant is not None and job.grant.pending

    def is_waiting(self, key: Key) -> bool:
        """Return whether a job waits for admission."""
        job = self._registry.find(key)
        return job is not None and job.entry.waiting is not None

    def decide(self, candidate: Candidate) -> Admission:
        """Return the decision about one job."""
        job = self._registry.jobs.get(candidate.uid)
        if job is None:
            return _undecided(None)
        queue = _identity(job, candidate)
        if job.entry.holding is not None:
            return self._decide_holder(job, job.entry.holding, candidate, queue)
        if job.published is None or job.entry.waiting is None:
            return _undecided(queue)
        self._publisher.catch_up(job, candidate)
        reason = job.published.reason
        return Admission(
            admitted=False,
            reason=reason.code,
            message=reason.message,
            queue=(queue or {}) | status_fields(job.published),
        )

    def _decide_holder(
        self, job: QueuedJob, holding: Admitted, candidate: Candidate, queue: Object | None
    ) -> Admission:
        """Decide about a job that holds GPUs: it continues, is preempted, or neither.

        A suspended Job whose pods still exist is resumed only by a new grant. A preemption is not remembered over a
        restart of the operator, and a user who suspends a job gives up its admission.
        """
        grant, request = job.grant, holding.request
        elastic = serving(self._applied.elastic_pools, request)
        is_granted = grant is not None and grant.pending
        continues = not job.preempted and (candidate.is_running or is_granted)
        return Admission(
            admitted=continues,
            reason="Admitted" if continues else "Preempted" if job.preempted else "",
            message="",
            decided=continues,
            preempted=job.preempted,
            nodes=tuple(node for node in grant.nodes if node and not is_future(node)) if grant else (),
            admitted_at=format_microseconds(grant.admitted_at) if grant else "",
            queue=queue,
            start_seconds=self._applied.timeout(elastic) if request.gpus else None,
            elastic=bool(elastic),
            growth=self._growth(holding, elastic),
            quota=self._quota_refusal(holding),
        )

    def _quota_refusal(self, job: Admitted) -> str:
        """Return why a quota refuses the missing pods of an admitted job; empty where none does."""
        if not job.missing_pods or not job.request.has_job:
            return ""
        refusal = Headroom(self.quotas, ()).refusal(job.request, job.missing_pods)
        return refusal.message if refusal else ""

    def _growth(self, job: Admitted, elastic: list[ElasticPool]) -> str:
        """Return which elastic pools a job waits for; empty where its pods have nodes or find room on existing ones."""
        unbound = unbound_pods(self.inventory, job) if elastic else []
        if not unbound:
            return ""
        free = FreeCapacity(self.inventory, ()).free(job.request.pool)
        if slots(free.values(), job.request.gpus) >= len(unbound):
            return ""
        return reasons.waiting_for_nodes(
            {pool.name: (pool.existing(self.inventory), pool.max_nodes) for pool in elastic}
        )

    # --- cycles -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run a cycle after changes and at least every few seconds, without end."""
        aged_at = self._clock()
        while True:
            began = self._clock()
            if began - aged_at >= _IDLE_SECONDS:
                self._registry.mark_holders_dirty()
                aged_at = began
            self.run_cycle()
            pause = _PAUSE_WITH_QUEUE if self._registry.waiting() else _PAUSE
            await asyncio.sleep(max(pause, _COST_FACTOR * (self._clock() - began)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DEFERRED_SECONDS if self._publisher.is_deferred else _IDLE_SECONDS):
                    await self._changed.wait()
            self._changed.clear()

    def run_cycle(self) -> None:
        """Ingest changes, admit what fits, and publish why the other jobs wait."""
        policy = self._policy.current()
        self._apply(policy)
        self._registry.ingest()
        waiting = self._registry.waiting()
        if not waiting:
            return
        holding = self._registry.holding()
        outcome = admit(waiting, holding, self.inventory, policy, self._now(), quotas=self.quotas)
        for start in outcome.starts:
            self._add(self._registry.grant(start).key)
        for uid in outcome.preempt:
            self._add(self._registry.preempt(uid).key)
        self._publisher.publish(outcome, policy)

    def _apply(self, policy: Policy) -> None:
        before, self._applied = self._applied, policy
        if (policy.start_seconds, policy.elastic_pools) == (before.start_seconds, before.elastic_pools):
            return
        for job in self._registry.jobs.values():  # the deadline of jobs that are starting changes
            if job.entry.holding:
                self._add(job.key)

    # --- metrics and debugging ----------------------------------------------------------------------------------------

    def count_waiting(self) -> dict[str, int]:
        """Return the number of waiting jobs by pool."""
        return dict(Counter(str(request.pool) for request in self._registry.waiting()))

    def describe(self) -> Object:
        """Return the settings and the exact queue."""
        return {"settings": self._policy.describe()} | describe(list(self._registry.jobs.values()))


def _undecided(queue: Object | None) -> Admission:
    return Admission(admitted=False, reason="", message="", decided=False, queue=queue)


def _identity(job: QueuedJob, candidate: Candidate) -> Object | None:
    """Return the part of `status.queue` that a job keeps for life; also of a job that ended before its first status."""
    request = job.entry.waiting or (job.entry.holding.request if job.entry.holding else None)
    if request is None and candidate.job_uid is None:
        return None
    pool = request.pool if request else candidate.pool
    return {"pool": str(pool), "enqueuedAt": format_microseconds(job.enqueued_at)}
