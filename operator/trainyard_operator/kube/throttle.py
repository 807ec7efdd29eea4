"""How fast and how much at once we ask of the API server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

_INSTANT = 1e-6
"""Seconds too short to wait for: rounding must not make a loop of it."""


class TokenBucket:
    """Lets `burst` requests through at once and `rate` per second after that.

    Args:
        rate: Requests per second.
        burst: Requests that may be saved up.
        clock: Monotonic seconds.
        sleep: Waits for seconds.
    """

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self._rate, self._burst, self._clock, self._sleep = rate, burst, clock, sleep
        self._tokens, self._filled = burst, clock()
        self._paused_until = 0.0

    async def take(self) -> None:
        """Wait until one more request may be made."""
        while True:
            now = self._clock()
            self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
            self._filled = now
            wait = max(self._paused_until - now, (1 - self._tokens) / self._rate)
            if wait < _INSTANT:
                self._tokens -= 1
                return
            await self._sleep(wait)

    def pause(self, seconds: float) -> None:
        """Let nothing through for a while, as the server asked."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)


class Gate:
    """A token bucket and a bound on the requests in flight."""

    def __init__(self, bucket: TokenBucket, in_flight: int) -> None:
        self.bucket = bucket
        self._slots = asyncio.Semaphore(in_flight)

    async def __aenter__(self) -> None:
        await self._slots.acquire()
        try:
            await self.bucket.take()
        except BaseException:
            self._slots.release()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._slots.release()
