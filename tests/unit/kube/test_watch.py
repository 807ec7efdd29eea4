"""The direct transport: one list, then watches that continue where the last one ended."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.kube.objects import NAMES, FakeKube, Time, bookmark, event, owner
from trainyard_kube.cache import Cache
from trainyard_kube.errors import ApiError, ApiUnreachableError, ForbiddenError, GoneError, NotFoundError, ServerError
from trainyard_kube.informer import Informer
from trainyard_kube.watch import DirectWatch


class Setup:
    def __init__(self, kube: FakeKube) -> None:
        server: Any = kube
        self.kube, self.time, self.states = kube, Time(), list[ApiError | None]()
        self.informer = Informer(server, NAMES, Cache(NAMES.trim), self.time)
        self.watch = DirectWatch(server, self.informer, self.time, on_state=self.states.append, sleep=self.time.sleep)

    def names(self) -> list[str]:
        return list(self.informer.cache.values())

    async def run(self) -> None:
        """Run until the scripted watches are exhausted."""
        with pytest.raises(IndexError):
            await self.watch.run()


async def test_cache_follows_list_and_watches() -> None:
    kube = FakeKube([event("MODIFIED", owner(60, name="new")), bookmark(77)], [event("DELETED", owner(80))])
    kube.items = [owner(7)]
    setup = Setup(kube)
    assert not setup.watch.synced
    setup.time.now += 5
    await setup.watch.cycle()
    assert (setup.names(), setup.watch.synced, setup.watch.last_contact) == (["new"], True, 5)
    await setup.watch.cycle()
    assert (setup.names(), len(kube.lists), kube.versions, setup.states) == ([], 1, ["50", "77"], [None])


async def test_watch_that_lost_its_place_leads_to_a_list() -> None:
    setup = Setup(FakeKube([GoneError(410, "Expired", "too old")], [], items=[owner(1)]))
    await setup.watch.cycle()
    await setup.watch.cycle()
    assert (len(setup.kube.lists), setup.kube.versions) == (2, ["50", "50"])


async def test_broken_watch_continues_from_its_last_version() -> None:
    setup = Setup(FakeKube([bookmark(77), ApiUnreachableError("reset")], [ServerError(500, "", "etcd")], []))
    await setup.run()
    assert (len(setup.kube.lists), setup.kube.versions) == (1, ["50", "77", "77", "77"])


async def test_pause_between_failures_grows_and_watches_are_a_second_apart() -> None:
    failures: list[list[Any]] = [[ApiUnreachableError("reset")] for _ in range(7)]
    setup = Setup(FakeKube(*failures))
    await setup.run()
    assert setup.time.slept == [0.5, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]


async def test_watches_that_end_at_once_are_a_second_apart() -> None:
    setup = Setup(FakeKube([], [], []))
    await setup.run()
    assert setup.time.slept == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("error", [NotFoundError(404, "NotFound", "gone"), ForbiddenError(403, "Forbidden", "no")])
async def test_absent_resource_is_reported_and_listed_again(error: ApiError) -> None:
    setup = Setup(FakeKube([error]))
    await setup.run()
    assert (setup.states, len(setup.kube.lists)) == ([None, error, None], 2)
    assert 15.0 in setup.time.slept


async def test_absent_resource_that_is_installed_later_is_found() -> None:
    kube = FakeKube([])
    kube.items = NotFoundError(404, "NotFound", "404 page not found")
    setup = Setup(kube)
    sleep = setup.time.sleep

    async def install(seconds: float) -> None:
        kube.items = [owner(1)]
        await sleep(seconds)

    setup.watch._sleep = install
    await setup.run()
    assert (setup.names(), [error is None for error in setup.states]) == (["one"], [False, True])
