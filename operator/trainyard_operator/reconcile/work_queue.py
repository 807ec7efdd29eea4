"""The work queue: each key at most once at a time, urgent keys first, retries with backoff, keys due later.

`Schedule` is the pure part, which takes the time as an argument; `WorkQueue` lets workers wait for it.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.1, 15.0
_URGENT_IN_A_ROW = 15
"""Urgent keys taken in a row while others wait; then one of the others is taken, so that none starves."""
_BESIDE_URGENT = 2
"""Other keys in progress beside an urgent one: their requests compete with it for the API server."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Result of a reconcile.

    Attributes:
        failed: Retry after a backoff that doubles with each failure in a row.
        again_after: Seconds after which the key is due again; None for never.
        at_least: Shortest backoff in seconds, as the server requested.
    """

    failed: bool = False
    again_after: float | None = None
    at_least: float = 0.0


class Schedule(Generic[K]):
    """Decides which key is next. A key that is added while it is in progress runs again afterwards.

    Args:
        urgent: Whether an added key goes before keys that are not urgent.
    """

    def __init__(self, urgent: Callable[[K], bool] = lambda _key: False) -> None:
        self._urgent = urgent
        self._ready: dict[bool, deque[K]] = {True: deque(), False: deque()}
        # The line of each key. A key that became urgent stays in the other line too, where it is skipped.
        self._queued: dict[K, bool] = {}
        self._in_a_row = 0
        self._running: dict[K, bool] = {}
        self._again: set[K] = set()
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._count = 0
        self._failures: dict[K, int] = {}

    def __len__(self) -> int:
        return len(self._queued)

    @property
    def busy(self) -> int:
        """Number of keys in progress."""
        return len(self._running)

    @property
    def has_urgent(self) -> bool:
        """Whether an urgent key waits or is in progress."""
        return bool(self._ready[True]) or any(self._running.values())

    def add(self, key: K) -> None:
        """Make a key due now."""
        self._due.pop(key, None)
        if key in self._running:
            self._again.add(key)
            return
        urgent = self._urgent(key)
        if key not in self._queued or (urgent and not self._queued[key]):
            self._queued[key] = urgent
            self._ready[urgent].append(key)

    def add_at(self, key: K, moment: float) -> None:
        """Make a key due at a moment, unless it is due earlier."""
        if key in self._queued or self._due.get(key, float("inf")) <= moment:
            return
        self._due[key] = moment
        self._count += 1
        heapq.heappush(self._heap, (moment, self._count, key))

    def take(self, now: float) -> K | None:
        """Take the next key, which is in progress from now on; None when none is due."""
        self._promote(now)
        for urgent in (True, False) if self._in_a_row < _URGENT_IN_A_ROW else (False, True):
            key = self._pop() if urgent else self._pop_other()
            if key is not None:
                self._in_a_row = self._in_a_row + 1 if urgent else 0
                self._running[key] = urgent
                return key
        return None

    def done(self, key: K, now: float, result: Result) -> None:
        """End the work on a key."""
        del self._running[key]
        if result.failed:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            backoff = min(_FIRST_BACKOFF * 2 ** min(failures - 1, 30), _LONGEST_BACKOFF)
            # Events do not shorten the backoff: otherwise a failure would repeat at the rate of the events.
            self._again.discard(key)
            self.add_at(key, now + max(backoff, result.at_least))
            return
        self._failures.pop(key, None)
        if key in self._again:
            self._again.discard(key)
            self.add(key)
        elif result.again_after is not None:
            self.add_at(key, now + result.again_after)

    def next_due(self) -> float | None:
        """Return when the earliest of the later keys is due."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def forget(self, key: K) -> None:
        """Drop the due time and the backoff of a key that is gone."""
        self._due.pop(key, None)
        self._failures.pop(key, None)

    def _pop_other(self) -> K | None:
        urgent = sum(self._running.values())
        crowded = urgent > 0 and len(self._running) - urgent >= _BESIDE_URGENT
        return None if crowded else self._pop(urgent=False)

    def _pop(self, urgent: bool = True) -> K | None:
        line = self._ready[urgent]
        while line:
            key = line.popleft()
            if self._queued.get(key) is urgent:
                del self._queued[key]
                return key
        return None

    def _promote(self, now: float) -> None:
        while (moment := self.next_due()) is not None and moment <= now:
            key = heapq.heappop(self._heap)[2]
            del self._due[key]
            self.add(key)


class WorkQueue(Generic[K]):
    """A schedule on which workers wait.

    Args:
        clock: Monotonic seconds.
        urgent: Whether an added key goes before keys that are not urgent.
    """

    def __init__(self, clock: Callable[[], float], urgent: Callable[[K], bool] = lambda _key: False) -> None:
        self.schedule: Schedule[K] = Schedule(urgent)
        self._clock = clock
        self._wakers: deque[asyncio.Future[None]] = deque()
        self._no_urgent = asyncio.Event()
        self._no_urgent.set()

    def add(self, key: K) -> None:
        """Make a key due now."""
        self.schedule.add(key)
        self._notify()

    def done(self, key: K, result: Result) -> None:
        """End the work on a key."""
        self.schedule.done(key, self._clock(), result)
        self._notify()

    async def wait_until_no_urgent(self) -> None:
        """Wait until no urgent key waits or is in progress."""
        await self._no_urgent.wait()

    async def get(self) -> K:
        """Wait for the next key; the caller reconciles it and then calls `done`."""
        while True:
            key = self.schedule.take(self._clock())
            moment = self.schedule.next_due()
            if key is not None:
                if moment is not None or len(self.schedule):
                    self._wake()  # another worker takes the next one, or waits until it is due
                return key
            await self._wait(None if moment is None else max(0.0, moment - self._clock()))

    async def _wait(self, seconds: float | None) -> None:
        waker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wakers.append(waker)
        try:
            # Not wait_for: before Python 3.12 it loses a cancellation that comes with the result.
            async with asyncio.timeout(seconds):
                await waker
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            self._wake()  # this worker may have been woken for a key that another must take now
            raise
        finally:
            if waker in self._wakers:
                self._wakers.remove(waker)

    def _notify(self) -> None:
        if self.schedule.has_urgent:
            self._no_urgent.clear()
        else:
            self._no_urgent.set()
        self._wake()

    def _wake(self) -> None:
        # One worker, which wakes the next when it has taken a key: waking all for each key costs more than the work.
        while self._wakers:
            waker = self._wakers.popleft()
            if not waker.done():
                waker.set_result(None)
                return
