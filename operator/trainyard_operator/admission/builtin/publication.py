"""What the status of waiting jobs reports: reason, queue position and expected start, within a write budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from trainyard_kube.resource import Key
from trainyard_kube.token_bucket import TokenBucket
from trainyard_operator.admission.builtin.registry import JobRegistry, QueuedJob
from trainyard_operator.admission.candidate import Candidate, Published
from trainyard_operator.admission.decision import QUEUE_WAITING_FIELDS
from trainyard_operator.queue.admission_cycle import Outcome
from trainyard_operator.queue.estimate import estimates
from trainyard_operator.queue.inventory import Inventory
from trainyard_operator.queue.models import Basis
from trainyard_operator.queue.policy import Policy
from trainyard_operator.queue.position import PUBLISH_INTERVAL, PUBLISH_RATE, QueuePosition, positions
from trainyard_operator.queue.reasons import Reason
from trainyard_operator.reconcile.fields import format_time

Object = dict[str, Any]
_COST_FACTOR = 20.0
"""Least pause between two refreshes of all jobs, in multiples of the duration of the last one."""
_ESTIMATE_TOLERANCE, _ESTIMATE_TOLERANCE_SECONDS = 0.1, 30.0
"""Change of an estimate that is not worth a status write: a share of the wait, and at least so many seconds."""


@dataclass(frozen=True, kw_only=True)
class _Findings:
    """Results of recent cycles, by UID.

    Attributes:
        reasons, positions: Of the last cycle that published anything.
        starts: Expected start and its basis, of the last refresh of all jobs.
    """

    reasons: Mapping[str, Reason] = field(default_factory=dict)
    positions: Mapping[str, QueuePosition] = field(default_factory=dict)
    starts: Mapping[str, tuple[datetime, Basis]] = field(default_factory=dict)

    def of(self, uid: str) -> Published:
        start, basis = self.starts.get(uid, (None, None))
        return Published(reason=self.reasons[uid], position=self.positions.get(uid), start=start, basis=basis)


class Publisher:
    """Decides when the status of a waiting job changes.

    A job that has nothing published gets its reason at once. The others are refreshed together, as time and the write
    budget allow.

    Args:
        registry: The jobs.
        inventory: Nodes and their pods.
        add: Queues a job for reconciliation.
        now: The time.
        clock: Monotonic seconds.

    Attributes:
        is_deferred: Whether the last cycle left a refresh of all jobs for later.
    """

    def __init__(
        self,
        registry: JobRegistry,
        inventory: Inventory,
        *,
        add: Callable[[Key], None],
        now: Callable[[], datetime],
        clock: Callable[[], float],
    ) -> None:
        self._registry, self._inventory = registry, inventory
        self._add, self._now, self._clock = add, now, clock
        self._budget = TokenBucket(PUBLISH_RATE, PUBLISH_RATE)
        self._refreshed_at, self._refresh_cost = clock(), 0.0
        self._findings = _Findings()
        self.is_deferred = False

    def publish(self, outcome: Outcome, policy: Policy) -> None:
        """Publish the results of a cycle with a policy."""
        began = self._clock()
        self.is_deferred = began - self._refreshed_at < _COST_FACTOR * self._refresh_cost
        if not self.is_deferred:
            self._findings = _Findings(
                reasons=outcome.reasons,
                positions=positions(outcome.waiting),
                starts=self._expected_starts(outcome, policy),
            )
            self._publish_each(outcome.reasons)
            self._refreshed_at, self._refresh_cost = began, self._clock() - began
        elif unpublished := [uid for uid in outcome.reasons if self._registry.jobs[uid].published is None]:
            self._findings = replace(self._findings, reasons=outcome.reasons, positions=positions(outcome.waiting))
            self._publish_each(unpublished)

    def catch_up(self, job: QueuedJob, candidate: Candidate) -> None:
        """Replace what is about to be written by the latest findings: in a long queue it may be old by now."""
        written = job.published is not None and _is_written(job.published, candidate)
        if not written and candidate.uid in self._findings.reasons:
            job.published, job.published_at = self._findings.of(candidate.uid), self._clock()

    def _expected_starts(self, outcome: Outcome, policy: Policy) -> dict[str, tuple[datetime, Basis]]:
        in_line = [request for request in outcome.waiting if request.uid not in outcome.nonblocking]
        found = estimates(in_line, self._registry.holding(), self._inventory, policy.elastic_pools)
        now = self._now()
        return {uid: (now + timedelta(seconds=estimate.seconds), estimate.basis) for uid, estimate in found.items()}

    def _publish_each(self, uids: Iterable[str]) -> None:
        findings, now = self._findings, self._now()
        for uid in uids:
            job = self._registry.jobs[uid]
            if uid not in findings.starts and _is_same(
                job.published, findings.reasons[uid], findings.positions.get(uid)
            ):
                continue  # most jobs of a long queue
            published = findings.of(uid)
            if self._is_due(job, published, now):
                job.published, job.published_at = published, self._clock()
                self._add(job.key)

    def _is_due(self, job: QueuedJob, published: Published, now: datetime) -> bool:
        if job.published is None:
            return True
        clock = self._clock()
        rested = clock - job.published_at >= PUBLISH_INTERVAL
        return rested and _differs(job.published, published, now) and self._budget.try_take(clock)


def status_fields(published: Published) -> Object:
    """Return the part of `status.queue` that changes while a job waits."""
    fields: Object = {"reason": published.reason.code}
    if published.position is not None:
        fields |= published.position._asdict()
    if published.start is not None and published.basis is not None:
        fields |= {"estimatedStartTime": format_time(published.start), "estimateBasis": published.basis.value}
    return fields


def _is_written(published: Published, candidate: Candidate) -> bool:
    """Return whether the status already reports this."""
    status, fields = candidate.queue_status, status_fields(published)
    return all(status.get(key) == fields.get(key) for key in QUEUE_WAITING_FIELDS)


def _is_same(before: Published | None, reason: Reason, position: QueuePosition | None) -> bool:
    """Return whether this is published already, without an estimate."""
    if before is None or before.basis is not None:
        return False
    return before.reason == reason and before.position == position


def _differs(before: Published, after: Published, now: datetime) -> bool:
    """Return whether the change is worth a status write; a small change of the estimate is not."""
    if (before.reason, before.position, before.basis) != (after.reason, after.position, after.basis):
        return True
    if before.start is None or after.start is None:
        return before.start is not after.start
    moved = abs((after.start - before.start).total_seconds())
    tolerance = _ESTIMATE_TOLERANCE * abs((after.start - now).total_seconds())
    return moved > max(_ESTIMATE_TOLERANCE_SECONDS, tolerance)
