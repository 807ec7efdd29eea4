"""Keys to work on: each at most once at a time, retried with growing pauses, due later where asked.

`Schedule` is the pure part with the time passed in; `WorkQueue` waits for it.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 15.0


@dataclass(frozen=True, kw_only=True)
class Result:
    """How the work on a key ended.

    Attributes:
        failed: Try again after a pause that doubles with each failure in a row.
        again_after: Seconds after which the key is due again; None for never.
        at_least: Seconds a retry must wait, as the server asked.
    """

    failed: bool = False
    again_after: float | None = None
    at_least: float = 0.0


class Schedule(Generic[K]):
    """Which key is worked on next. A key added while it is worked on runs again afterwards."""

    def __init__(self) -> None:
        self._ready: deque[K] = deque()
        self._queued: set[K] = set()
        self._running: set[K] = set()
        self._again: set[K] = set()
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._count = 0
        self._failures: dict[K, int] = {}

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def busy(self) -> int:
        """Keys being worked on."""
        return len(self._running)

    def add(self, key: K) -> None:
        """Make a key due now."""
        self._due.pop(key, None)
        if key in self._running:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.append(key)

    def add_at(self, key: K, moment: float) -> None:
        """Make a key due at a moment, unless it is due earlier."""
        if key in self._queued or self._due.get(key, float("inf")) <= moment:
            return
        self._due[key] = moment
        self._count += 1
        heapq.heappush(self._heap, (moment, self._count, key))

    def take(self, now: float) -> K | None:
        """The next key, which is being worked on from now on; None when none is due."""
        self._promote(now)
        if not self._ready:
            return None
        key = self._ready.popleft()
        self._queued.discard(key)
        self._running.add(key)
        return key

    def done(self, key: K, now: float, result: Result) -> None:
        """The work on a key ended."""
        self._running.discard(key)
        if result.failed:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            pause = min(_FIRST_PAUSE * 2 ** min(failures - 1, 30), _LONGEST_PAUSE)
            # News do not shorten the pause: what failed would fail again at the rate of the events.
            self._again.discard(key)
            self.add_at(key, now + max(pause, result.at_least))
            return
        self._failures.pop(key, None)
        if key in self._again:
            self._again.discard(key)
            self.add(key)
        elif result.again_after is not None:
            self.add_at(key, now + result.again_after)

    def next_due(self) -> float | None:
        """The moment of the earliest key that is due later."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def forget(self, key: K) -> None:
        """Drop what is planned for a key that is gone."""
        self._due.pop(key, None)
        self._failures.pop(key, None)

    def _promote(self, now: float) -> None:
        while (moment := self.next_due()) is not None and moment <= now:
            key = heapq.heappop(self._heap)[2]
            del self._due[key]
            self.add(key)


class WorkQueue(Generic[K]):
    """A schedule that workers wait on.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.schedule: Schedule[K] = Schedule()
        self._clock = clock
        self._wakers: set[asyncio.Future[None]] = set()

    def add(self, key: K) -> None:
        """Make a key due now."""
        self.schedule.add(key)
        self._wake()

    def done(self, key: K, result: Result) -> None:
        """The work on a key ended."""
        self.schedule.done(key, self._clock(), result)
        self._wake()

    async def get(self) -> K:
        """Wait for the next key; the caller works on it and then calls `done`."""
        while True:
            key = self.schedule.take(self._clock())
            if key is not None:
                return key
            moment = self.schedule.next_due()
            await self._wait(None if moment is None else max(0.0, moment - self._clock()))

    async def _wait(self, seconds: float | None) -> None:
        waker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wakers.add(waker)
        try:
            # Not wait_for: before Python 3.12 it loses a cancellation that comes with the result.
            async with asyncio.timeout(seconds):
                await waker
        except TimeoutError:
            pass
        finally:
            self._wakers.discard(waker)

    def _wake(self) -> None:
        for waker in self._wakers:
            if not waker.done():
                waker.set_result(None)
