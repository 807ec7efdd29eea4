"""When which job's status is written: pure, the clock is passed in.

Every job's newest update waits here until it may be written: at most one write in flight per job, one write per job in
`interval` seconds, `rate` writes per second in all, jobs whose stage changed before the others, then those that wait
longest.
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
    """It had no effect, or nobody knows; the same update may succeed later."""
    DROPPED = "dropped"
    """It had no effect and never will."""


@dataclass(slots=True)
class _Entry(Generic[T]):
    pending: tuple[T, str] | None = None
    in_flight: tuple[T, str] | None = None
    started: float = 0.0
    due: float = 0.0
    stage: str | None = None
    failures: int = 0


@dataclass
class WriteSchedule(Generic[K, T]):
    """Updates that wait to be written.

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
        """Make `update` the newest of its job; an older one that still waits is forgotten.

        Args:
            key: The job.
            update: What is to be written.
            stage: The stage it tells of.
            written: The stage that stands in the status, for a job that this schedule has not written yet.
        """
        self._entries.setdefault(key, _Entry(stage=written)).pending = (update, stage)

    def next(self, now: float) -> tuple[K, T] | None:
        """The update to write now, which stays pending until `start` or `drop`; None when none may be written."""
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
        """The pending update of `key` is being written from now on."""
        entry = self._entries[key]
        entry.pending, entry.in_flight, entry.started = None, entry.pending, now
        self._bucket.try_take(now)

    def finish(self, key: K, now: float, outcome: Outcome) -> None:
        """The write of `key` ended; an update to retry waits again unless a newer one came meanwhile."""
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
        """Forget the pending update of `key`: there is nothing to write."""
        if key in self._entries:
            self._entries[key].pending = None

    def forget(self, key: K) -> None:
        """Forget everything about a job that is gone or finished."""
        self._entries.pop(key, None)

    def delay(self, now: float) -> float | None:
        """Seconds until `next` may have something, 0 when it has; None when only a new offer or `finish` can help."""
        dues = [entry.due for _, entry in self._waiting()]
        return max(0.0, min(dues) - now, self._bucket.delay(now)) if dues else None

    def hurry(self) -> None:
        """The process is about to end: from now on no job's interval holds, only the rate does."""
        self.interval = 0.0
        for entry in self._entries.values():
            entry.due = 0.0

    def overdue(self, now: float) -> int:
        """How many updates wait for the rate, or for another try, rather than for their job's interval."""
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
