"""Leader election on a fake clock and a Lease with compare-and-swap."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from trainyard_kube.errors import ApiUnreachableError, ConflictError, LeadershipLostError, NotFoundError
from trainyard_kube.lease import DURATION, RENEW_DEADLINE, RETRY_PERIOD, Elector

Object = dict[str, Any]


class Cluster:
    """A clock and one Lease with optimistic locking."""

    def __init__(self) -> None:
        self.now, self.version, self.reachable = 0.0, 0, True
        self.lease: Object | None = None
        self.writers: list[str] = []

    def store(self, body: Object) -> Object:
        self.version += 1
        stored = copy.deepcopy(body)
        stored["metadata"]["resourceVersion"] = str(self.version)
        self.lease = stored
        self.writers.append(body["spec"]["holderIdentity"])
        return copy.deepcopy(stored)

    async def read(self) -> Object:
        self.check()
        if self.lease is None:
            raise NotFoundError(404, "NotFound", "no such lease")
        return copy.deepcopy(self.lease)

    async def create(self, body: Object) -> Object:
        self.check()
        if self.lease is not None:
            raise ConflictError(409, "AlreadyExists", "exists")
        return self.store(body)

    async def update(self, body: Object) -> Object:
        self.check()
        assert self.lease is not None
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ConflictError(409, "Conflict", "changed")
        return self.store(body)

    def check(self) -> None:
        if not self.reachable:
            raise ApiUnreachableError("no answer")


class SleptEnoughError(Exception):
    """The elector slept as often as the test permits."""


def elector(cluster: Cluster, identity: str, *, sleeps: int = 100) -> Elector:
    left = [sleeps]

    async def sleep(seconds: float) -> None:
        cluster.now += seconds
        left[0] -= 1
        if left[0] < 0:
            raise SleptEnoughError

    return Elector(
        cluster,
        name="lease",
        identity=identity,
        clock=lambda: cluster.now,
        now=lambda: datetime.fromtimestamp(cluster.now, UTC),
        sleep=sleep,
    )


async def test_first_elector_leads_at_once_and_renews() -> None:
    cluster = Cluster()
    first = elector(cluster, "first", sleeps=3)
    await first.acquire()
    assert (cluster.now, first.leading) == (0, True)
    with pytest.raises(SleptEnoughError):
        await first.hold()
    assert cluster.writers == ["first"] * 4


async def test_second_elector_waits_until_the_record_was_unchanged_for_its_duration() -> None:
    cluster = Cluster()
    await elector(cluster, "first").acquire()
    second = elector(cluster, "second")
    await second.acquire()
    assert DURATION <= cluster.now <= DURATION + 2 * RETRY_PERIOD
    assert cluster.lease is not None
    assert cluster.lease["spec"]["leaseTransitions"] == 1


async def test_holder_that_renews_is_never_replaced_whatever_the_wall_clocks_show() -> None:
    cluster = Cluster()
    first = elector(cluster, "first")
    await first.acquire()
    second = elector(cluster, "second", sleeps=30)
    original = cluster.read

    async def read_and_renew() -> Object:
        assert await first._acquire_or_renew()
        return await original()

    cluster.read = read_and_renew  # type: ignore[method-assign] # one call is overtaken
    with pytest.raises(SleptEnoughError):
        await second.acquire()
    assert not second.leading


async def test_released_lease_is_acquired_at_once() -> None:
    cluster = Cluster()
    first = elector(cluster, "first")
    await first.acquire()
    await first.release()
    second = elector(cluster, "second")
    await second.acquire()
    assert cluster.now == 0


async def test_leader_that_cannot_renew_ends_before_another_may_lead() -> None:
    cluster = Cluster()
    first = elector(cluster, "first")
    await first.acquire()
    cluster.reachable = False
    with pytest.raises(LeadershipLostError):
        await first.hold()
    assert not first.leading
    assert RENEW_DEADLINE <= cluster.now < DURATION


async def test_leader_ends_at_its_next_renewal_after_the_lease_was_taken() -> None:
    cluster = Cluster()
    first = elector(cluster, "first")
    await first.acquire()
    taken = await cluster.read()
    taken["spec"]["holderIdentity"] = "second"
    await cluster.update(taken)
    with pytest.raises(LeadershipLostError):
        await first.hold()
    assert cluster.now == RETRY_PERIOD


async def test_concurrent_creation_has_one_leader() -> None:
    cluster = Cluster()
    second = elector(cluster, "second", sleeps=1)
    original = cluster.create

    async def create_after_another(body: Object) -> Object:
        cluster.create = original  # type: ignore[method-assign] # one call is overtaken
        await elector(cluster, "first").acquire()
        return await original(body)

    cluster.create = create_after_another  # type: ignore[method-assign] # one call is overtaken
    with pytest.raises(SleptEnoughError):
        await second.acquire()
    assert cluster.writers == ["first"]
