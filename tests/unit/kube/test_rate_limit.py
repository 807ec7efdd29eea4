"""Token bucket and the rate limiter built on it."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.kube.objects import Time
from trainyard_kube.rate_limit import Limits, Pacer, RateLimiter
from trainyard_kube.token_bucket import TokenBucket


@pytest.mark.parametrize(("seconds", "permitted"), [(0.0, 5), (0.2, 6), (1.0, 10), (60.0, 10)])
def test_bucket_refills_with_time_up_to_its_burst(seconds: float, permitted: int) -> None:
    bucket = TokenBucket(5.0, 5.0)
    first = sum(bucket.try_take(100.0) for _ in range(20))
    assert first + sum(bucket.try_take(100.0 + seconds) for _ in range(20)) == permitted


def test_bucket_reports_the_delay_until_the_next_operation() -> None:
    bucket = TokenBucket(10.0, 1.0)
    assert (bucket.delay(3.0), bucket.try_take(3.0)) == (0.0, True)
    assert bucket.delay(3.0) == pytest.approx(0.1)
    bucket.pause(3.0, 2.0)
    assert (bucket.delay(3.0), bucket.delay(4.0), bucket.try_take(4.9)) == (2.0, 1.0, False)
    assert bucket.try_take(5.0)


async def test_limiter_permits_a_burst_and_then_its_rate() -> None:
    time = Time()
    limiter = RateLimiter(Limits(rate=10, burst=3, in_flight=1), lambda: time.now, time.sleep)

    async def request() -> None:
        async with limiter:
            pass

    for _ in range(3):
        await request()
    assert time.now == 0
    for _ in range(10):
        await request()
    assert time.now == pytest.approx(1.0)
    limiter.pause(5)
    await request()
    assert time.now == pytest.approx(6.0)


async def test_limiter_bounds_concurrent_requests() -> None:
    time = Time()
    limiter, release, entered = RateLimiter(Limits(100, 100, 2), lambda: time.now, time.sleep), asyncio.Event(), 0

    async def request() -> None:
        nonlocal entered
        async with limiter:
            entered += 1
            await release.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(request())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert entered == 2
        release.set()
    assert entered == 3


async def test_watch_requests_of_one_resource_are_a_second_apart() -> None:
    time = Time()
    pacer = Pacer(lambda: time.now, time.sleep)
    for url in ("pods", "jobs"):
        await pacer.wait(url)
    assert time.now == 0
    for _ in range(2):
        await pacer.wait("pods")
    assert time.now == pytest.approx(2.0)
    time.now = 10.0
    await pacer.wait("pods")
    assert time.now == 10.0
