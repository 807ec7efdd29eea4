"""Decides when the status of each job is written; pure, the clock is passed in.

Keeps the newest update of each job until it may be written: at most one write in flight per job, one write per job in
`interval` seconds and `rate` writes per second over all jobs. Jobs whose stage changed are written first, then those
that have waited longest.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from trainyard_kube.token_bucket import TokenBucket

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

_BACKOFF_SECONDS, _LONGEST_BACKOFF_SECONDS = 0.25, 10.0


class Outcome(Enum):
    """How a write ended."""

    WRITTEN = "written"
    """It took effect."""
    RETRY = "retry"
    """It had no effect, or the effect is unknown; the same update may succeed later."""
    DROPPED = "dropped"
    """It had no effect and cannot succeed later."""


@dataclass(slots=True)
class _Entry(Generic[T]):
    pending: tuple[T, str] | None = None
    in_flight: tuple[T, str] | None = None
    started: float = 0.0
    due: float = 0.0
    stage: str | None = None
    failures: int = 0


@dataclass
class WriteScheduler(Generic[K, T]):
    """Rate limiter and priority queue of status writes.

    Attributes:
        interval: Seconds between the starts of two writes of one job.
        rate: Writes per second over all jobs.
    """

    interval: float = 10.0
    rate: float = 20.0
    _entries: dict[K, _Entry[T]] = field(default_factory=dict, init=False)
    _bucket: TokenBucket = field(init=False)

    def __post_init__(self) -> None:
        self._bucket = TokenBucket(self.rate, burst=1.0)

    def offer(self, key: K, update: T, stage: str, *, written: str | None = None) -> None:
        """Set the pending update of a job in place of an older one.

        Args:
            key: The job.
            update: The update to write.
            stage: The stage in the update.
            written: The stage in the status, for a job that this scheduler has not written yet.
        """
        self._entries.setdefault(key, _Entry(stage=written)).pending = (update, stage)

    def next(self, now: float) -> tuple[K, T] | None:
        """Return the update to write now, pending until `start` or `drop`; None if none may be written."""
        if self._bucket.delay(now) > 0:
            return None
        due = [key for key, entry in self._waiting() if entry.due <= now]
        if not due:
            return None
        key = min(due, key=lambda key: self._rank(self._entries[key]))
        pending = self._entries[key].pending
        assert pending is not None
        return key, pending[0]

    def start(self, key: K, now: float) -> None:
        """Mark the pending update of `key` as in flight."""
        entry = self._entries[key]
        entry.pending, entry.in_flight, entry.started = None, entry.pending, now
        self._bucket.try_take(now)

    def finish(self, key: K, now: float, outcome: Outcome) -> None:
        """Record the outcome of a write; an update to retry is pending again unless a newer one replaced it."""
        entry = self._entries.get(key)
        if entry is None or entry.in_flight is None:
            return
        written, entry.in_flight = entry.in_flight, None
        if outcome is Outcome.RETRY:
            entry.due = now + min(_BACKOFF_SECONDS * 2**entry.failures, _LONGEST_BACKOFF_SECONDS)
            entry.failures = min(entry.failures + 1, 16)
            entry.pending = entry.pending or written
            return
        entry.failures = 0
        if outcome is Outcome.WRITTEN:
            entry.due, entry.stage = entry.started + self.interval, written[1]

    def drop(self, key: K) -> None:
        """Discard the pending update of `key`."""
        if key in self._entries:
            self._entries[key].pending = None

    def forget(self, key: K) -> None:
        """Remove all state of a job that was deleted or has finished."""
        self._entries.pop(key, None)

    def delay(self, now: float) -> float | None:
        """Return the seconds until `next` may return an update; None if that requires an `offer` or `finish`."""
        dues = [entry.due for _, entry in self._waiting()]
        return max(0.0, min(dues) - now, self._bucket.delay(now)) if dues else None

    def ignore_intervals(self) -> None:
        """Limit writes by the rate only, so that pending updates are written before the process ends."""
        self.interval = 0.0
        for entry in self._entries.values():
            entry.due = 0.0

    def overdue(self, now: float) -> int:
        """Return the number of updates that wait for the rate or for a retry, not for the interval of their job."""
        return sum(entry.due <= now or entry.failures > 0 for _, entry in self._waiting())

    @property
    def busy(self) -> bool:
        """Whether any update is pending or in flight."""
        return any(entry.pending or entry.in_flight for entry in self._entries.values())

    def _waiting(self) -> list[tuple[K, _Entry[T]]]:
        return [(key, entry) for key, entry in self._entries.items() if entry.pending and not entry.in_flight]

    @staticmethod
    def _rank(entry: _Entry[T]) -> tuple[bool, float]:
        assert entry.pending is not None
        return entry.pending[1] == entry.stage, entry.due
