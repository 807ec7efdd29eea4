"""Limits the rate and the number of concurrent requests to the API server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from trainyard_kube.token_bucket import TokenBucket

WATCH_INTERVAL = 1.0
"""Minimum seconds between two watch requests of one resource."""


class Limits(NamedTuple):
    """Limits of one client.

    Attributes:
        rate: Requests per second.
        burst: Requests that can be sent at once.
        in_flight: Requests that wait for their answers at the same time.
    """

    rate: float
    burst: float
    in_flight: int


async def wait_for_token(
    bucket: TokenBucket, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
) -> None:
    """Wait until a token is available and take it."""
    while not bucket.try_take(clock()):
        await sleep(bucket.delay(clock()))


class RateLimiter:
    """Context manager of one request: enters as soon as the limits permit it.

    Args:
        limits: Rate, burst and concurrency.
        clock: Monotonic seconds.
        sleep: Waits for seconds.
    """

    def __init__(
        self, limits: Limits, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._bucket = TokenBucket(limits.rate, limits.burst)
        self._clock, self._sleep = clock, sleep
        self._slots = asyncio.Semaphore(limits.in_flight)

    async def __aenter__(self) -> None:
        await self._slots.acquire()
        try:
            await wait_for_token(self._bucket, self._clock, self._sleep)
        except BaseException:
            self._slots.release()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._slots.release()

    def pause(self, seconds: float) -> None:
        """Permit no request for some seconds, as the server requested."""
        self._bucket.pause(self._clock(), seconds)


class Pacer:
    """Spaces the watch requests of each resource: a server that closes watches at once must not be flooded.

    Args:
        clock: Monotonic seconds.
        sleep: Waits for seconds.
    """

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]) -> None:
        self._clock, self._sleep = clock, sleep
        self._buckets: dict[str, TokenBucket] = {}

    async def wait(self, url: str) -> None:
        """Wait until the next watch request of a resource is permitted."""
        bucket = self._buckets.setdefault(url, TokenBucket(1 / WATCH_INTERVAL, burst=1.0))
        await wait_for_token(bucket, self._clock, self._sleep)
