"""The jobs in the builtin queue: ingest of changes, queue times, grants, and durations of earlier runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from trainyard_kube.resource import Key
from trainyard_operator.admission.candidate import Candidate, Grant, ObserveCandidate, Published, QueueEntry
from trainyard_operator.queue.admission_cycle import Start
from trainyard_operator.queue.estimate import expected_run
from trainyard_operator.queue.models import Admitted, Basis, Estimate, Request
from trainyard_operator.queue.pool import Pool
from trainyard_operator.queue.position import PUBLISH_INTERVAL

_REMEMBERED_RUNS = 50
"""Finished runs of a pool whose durations are kept."""
_EPOCH = datetime.fromtimestamp(0, UTC)
_TIE_BREAK = timedelta(microseconds=1)


@dataclass(kw_only=True)
class QueuedJob:
    """One job in the queue.

    Attributes:
        key: Its key.
        enqueued_at: When the queue first observed it.
        entry: Its part in the next cycle.
        grant: Its admission by this process.
        preempted: Whether the queue preempted it and it still holds GPUs.
        published: What its status reports while it waits.
        published_at: When that last changed, in monotonic seconds.
    """

    key: Key
    enqueued_at: datetime
    entry: QueueEntry = field(default_factory=QueueEntry)
    grant: Grant | None = None
    preempted: bool = False
    published: Published | None = None
    published_at: float = -PUBLISH_INTERVAL


class JobRegistry:
    """All jobs that wait or hold GPUs.

    Args:
        observe: Reads a job and its children from the cache.
        now: The time.

    Attributes:
        jobs: By UID.
    """

    def __init__(self, observe: ObserveCandidate, now: Callable[[], datetime]) -> None:
        self._observe, self._now = observe, now
        self.jobs: dict[str, QueuedJob] = {}
        self._uids: dict[Key, str] = {}
        self._dirty: dict[Key, None] = {}
        self._runs: dict[Pool, deque[float]] = {}
        self._last_enqueued = self._last_admitted = _EPOCH

    def mark_dirty(self, key: Key) -> None:
        """Read a job again at the next ingest."""
        self._dirty[key] = None

    def mark_holders_dirty(self) -> None:
        """Read all jobs that hold GPUs again: their remaining time shrinks without events."""
        self._dirty |= {job.key: None for job in self.jobs.values() if job.entry.holding}

    def find(self, key: Key) -> QueuedJob | None:
        """Return the job of a key."""
        return self.jobs.get(self._uids.get(key, ""))

    def waiting(self) -> list[Request]:
        """Return the requests of all waiting jobs."""
        return [job.entry.waiting for job in self.jobs.values() if job.entry.waiting]

    def holding(self) -> list[Admitted]:
        """Return all jobs that hold GPUs."""
        return [job.entry.holding for job in self.jobs.values() if job.entry.holding]

    def ingest(self) -> None:
        """Read all jobs that changed."""
        dirty, self._dirty = self._dirty, {}
        now = self._now()
        observed = {key: self._observe(key) for key in dirty}
        for key, candidate in observed.items():
            if candidate is None or candidate.uid != self._uids.get(key, candidate.uid):
                self._forget(key)
        changed = [(key, candidate) for key, candidate in observed.items() if candidate is not None]
        for key, candidate in sorted(changed, key=lambda entry: _enqueue_order(entry[1])):
            self._read(key, candidate, now)

    def grant(self, start: Start) -> QueuedJob:
        """Record an admission. No two jobs are admitted at the same moment."""
        job = self.jobs[start.request.uid]
        now = self._last_admitted = max(self._now(), self._last_admitted + _TIE_BREAK)
        job.grant = Grant(start.placement, now, pending=True)
        job.entry = QueueEntry(holding=Admitted(request=start.request, placement=start.placement, admitted_at=now))
        job.published = None
        return job

    def preempt(self, uid: str) -> QueuedJob:
        """Record a preemption."""
        job = self.jobs[uid]
        job.preempted = True
        return job

    def _read(self, key: Key, candidate: Candidate, now: datetime) -> None:
        job = self.jobs.get(candidate.uid)
        if job is None:
            job = self.jobs[candidate.uid] = QueuedJob(key=key, enqueued_at=self._enqueue(candidate))
            self._uids[key] = candidate.uid
        before = job.entry
        job.entry = candidate.entry(
            enqueued_at=job.enqueued_at,
            now=now,
            grant=job.grant,
            preempted=job.preempted,
            history=self._expected_run,
        )
        _settle_grant(job, candidate)
        if before.holding is not None and job.entry.holding is None:
            self._record_run(before.holding.request.pool, candidate, now)
        if job.published is None and job.entry.waiting is not None and before == QueueEntry():
            job.published, job.published_at = candidate.published, -PUBLISH_INTERVAL
        if job.entry == QueueEntry() and candidate.is_final:
            self._forget(key)

    def _forget(self, key: Key) -> None:
        uid = self._uids.pop(key, None)
        if uid is not None:
            self.jobs.pop(uid, None)

    def _enqueue(self, candidate: Candidate) -> datetime:
        """Return the recorded queue time, else the creation time, made unique: creation times are whole seconds."""
        recorded = candidate.enqueued_at
        if recorded is not None:
            self._last_enqueued = max(self._last_enqueued, recorded)
            return recorded
        self._last_enqueued = max(candidate.created[0], self._last_enqueued + _TIE_BREAK)
        return self._last_enqueued

    def _record_run(self, pool: Pool, candidate: Candidate, now: datetime) -> None:
        seconds = candidate.completed_run(now)
        if seconds is not None:
            self._runs.setdefault(pool, deque(maxlen=_REMEMBERED_RUNS)).append(seconds)

    def _expected_run(self, pool: Pool, elapsed: float) -> Estimate | None:
        runs = self._runs.get(pool)
        return Estimate(expected_run(runs, elapsed), Basis.HISTORY) if runs else None


def _settle_grant(job: QueuedJob, candidate: Candidate) -> None:
    """Close a grant once its Job runs or releases; drop grant and preemption once the job holds nothing."""
    holding = job.entry.holding
    if holding is None:
        job.grant, job.preempted = None, False
    elif job.grant is not None and (holding.releasing or candidate.is_running):
        job.grant = job.grant._replace(pending=False)


def _enqueue_order(candidate: Candidate) -> tuple[bool, datetime, int]:
    """Jobs with a recorded queue time first, then by creation."""
    return candidate.enqueued_at is None, *candidate.created
