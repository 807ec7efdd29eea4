"""Events and lists reach the cache; owners are notified."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.kube.objects import CHILD_SPEC, NAMES, FakeKube, Time, child, event, owner
from trainyard_kube import resync
from trainyard_kube.cache import Cache
from trainyard_kube.errors import ServerError
from trainyard_kube.informer import Informer
from trainyard_kube.resync import Resync


def informer_of(kube: Any, notified: list[tuple[int, bool]] | None = None) -> Informer[str]:
    def notify(objects: Sequence[Any], fresh: bool) -> None:
        if notified is not None:
            notified.append((len(objects), fresh))

    return Informer(kube, NAMES, Cache(NAMES.trim), lambda: 5.0, notify)


def test_event_that_repeats_a_cached_version_is_not_fresh() -> None:
    notified: list[tuple[int, bool]] = []
    informer = informer_of(None, notified)
    informer.cache.put(owner(4))
    for version in (3, 4, 5):
        informer.handle(event("MODIFIED", owner(version)))
    informer.handle(event("DELETED", owner(5)))
    assert [fresh for _, fresh in notified] == [False, False, True, True]
    assert (len(informer.cache), informer.last_event) == (0, 5.0)


def test_event_without_type_is_an_object_of_a_list() -> None:
    informer = informer_of(None)
    informer.handle(event(None, owner(2)))
    assert list(informer.cache.values()) == ["one"]


def test_event_that_cannot_be_read_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    informer_of(None).handle({"type": "ADDED", "object": {}})
    assert "an event of owners could not be read" in caplog.text


def test_objects_without_the_labels_are_ignored() -> None:
    informer = Informer[Any](None, CHILD_SPEC, Cache(CHILD_SPEC.trim), lambda: 0.0)  # type: ignore[arg-type]
    informer.handle(event("ADDED", child(1, managed="no")))
    informer.handle(event("ADDED", child(2, "other")))
    assert [each["metadata"]["name"] for each in informer.cache.values()] == ["other"]


async def test_objects_of_other_namespaces_are_dropped_from_lists_and_events() -> None:
    here, there = child(1), child(2, "other")
    there["metadata"]["namespace"] = "elsewhere"
    spec = replace(CHILD_SPEC, namespaces=frozenset({here["metadata"]["namespace"]}))
    kube: Any = FakeKube(items=[here, there])
    informer = Informer[Any](kube, spec, Cache(spec.trim), lambda: 0.0)
    assert await informer.relist() == (1, "50")
    informer.handle(event("MODIFIED", {**there, "metadata": {**there["metadata"], "resourceVersion": "60"}}))
    assert len(informer.cache) == 1


async def test_relist_uses_the_selector_and_counts_changes() -> None:
    kube: Any = FakeKube(items=[child(1), child(2, "other")])
    informer = Informer[Any](kube, CHILD_SPEC, Cache(CHILD_SPEC.trim), lambda: 0.0)
    assert await informer.relist() == (2, "50")
    assert await informer.relist() == (0, "50")
    assert kube.lists[0] == ("/api/v1/children", [("labelSelector", "managed=yes")])


async def test_events_during_the_grace_are_not_missed() -> None:
    notified: list[tuple[int, bool]] = []
    informer = informer_of(FakeKube(items=[owner(7)]), notified)
    listing = asyncio.create_task(informer.relist(grace=0.05))
    await asyncio.sleep(0)
    informer.handle(event("MODIFIED", owner(7)))
    assert (await listing)[0] == 0
    assert notified == [(1, True)]


async def until_waiting() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GRACE", "_SETTLE", "_RETRY"):
        monkeypatch.setattr(resync, name, 0.0)


@pytest.mark.usefixtures("no_delays")
async def test_resync_lists_what_was_requested_and_reports_dead_watches() -> None:
    kube = FakeKube(items=[owner(1)])
    first, second = informer_of(kube), informer_of(kube)
    lists = Resync([first, second], Time())
    await lists.prime()
    assert (len(kube.lists), lists.missed) == (2, 0)
    running = asyncio.create_task(lists.run())
    for version in (2, 3):
        kube.items = [owner(version)]
        lists.request(second)
        await until_waiting()
    assert (len(kube.lists), lists.missed, lists.dead_watches) == (4, 2, ["owners"])
    lists.request(second)
    await until_waiting()
    assert (lists.missed, lists.dead_watches) == (2, [])
    running.cancel()


@pytest.mark.usefixtures("no_delays")
async def test_failed_resync_is_repeated(caplog: pytest.LogCaptureFixture) -> None:
    kube = FakeKube()
    informer = informer_of(kube)
    lists = Resync([informer], Time())
    running = asyncio.create_task(lists.run())
    kube.items = ServerError(500, "", "etcd")
    lists.request(informer)
    await until_waiting()
    kube.items = [owner(1)]
    await until_waiting()
    assert list(informer.cache.values()) == ["one"]
    assert "a resync failed" in caplog.text
    running.cancel()
