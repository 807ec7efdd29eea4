"""Workloads while Kueue is installed, absent or forbidden, and its visibility API."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tests.unit.operator.admission.workloads import workload
from trainyard_kube import rate_limit
from trainyard_kube.errors import (
    ApiError,
    ApiUnreachableError,
    ForbiddenError,
    GoneError,
    NotFoundError,
    ServerError,
)
from trainyard_operator.admission.kueue_workloads import Visibility, WorkloadFeed

Object = dict[str, Any]


class Server:
    """A fake API server with scripted lists and watches."""

    def __init__(self) -> None:
        self.listed: list[Object] | ApiError = []
        self.events: list[Object] | ApiError = []
        self.pending: dict[str, Any] = {}
        self.gets: list[str] = []

    async def list_all(self, url: str, query: Any, keep: Any) -> tuple[list[Object], str]:
        assert url == "/apis/kueue.x-k8s.io/v1beta2/workloads"
        assert query == [("labelSelector", "kueue.x-k8s.io/job-uid")]
        if isinstance(self.listed, ApiError):
            raise self.listed
        return [keep(item) for item in self.listed], "10"

    async def watch(self, _url: str, _query: Any, version: str, _seconds: int) -> AsyncGenerator[Object]:
        if isinstance(self.events, ApiError):
            raise self.events
        for event in self.events:
            yield event

    async def get(self, url: str) -> Object:
        self.gets.append(url)
        answer = self.pending.get(url.split("/")[3])
        if isinstance(answer, ApiError):
            raise answer
        return {"items": answer}


class Setup:
    def __init__(self) -> None:
        self.server, self.changed, self.transitions = Server(), list[str](), 0
        kube: Any = self.server
        self.feed = WorkloadFeed(kube, on_change=self.changed.append, on_availability=self._count)

    def _count(self) -> None:
        self.transitions += 1

    async def attempt(self) -> float:
        return await self.feed._watch.attempt()


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> Setup:
    monkeypatch.setattr(rate_limit, "WATCH_INTERVAL", 1e-6)
    return Setup()


async def test_workloads_are_found_by_the_uid_of_their_job(setup: Setup) -> None:
    setup.server.listed = [workload("a", 5), workload("b", 6), workload("over", 7, finished=True)]
    setup.server.events = [
        {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "11"}}},
        {"type": "MODIFIED", "object": workload("a", 11, finished=True)},
        {"type": "DELETED", "object": workload("b", 12)},
        {"type": "ADDED", "object": workload("c", 13)},
        {"type": "MODIFIED", "object": workload("c", 12, name="older")},
    ]
    assert not setup.feed.synced
    await setup.attempt()
    assert (setup.feed.synced, setup.feed.problem, setup.transitions) == (True, None, 1)
    assert [setup.feed.of(uid) is not None for uid in ("a", "b", "over", "c")] == [False, False, False, True]
    assert set(setup.changed) == {"a", "b", "c"}
    kept = setup.feed.of("c") or {}
    assert kept["metadata"]["name"] == "w"
    assert kept["metadata"]["annotations"] == {"trainyard.dev/held": "true"}
    assert "podSets" not in kept["spec"]
    assert "admission" not in kept["status"]


async def test_deletion_of_a_replaced_workload_keeps_the_new_one(setup: Setup) -> None:
    old, new = workload("a", 5), workload("a", 6)
    new["metadata"]["uid"] = "new"
    setup.feed.put(old)
    setup.feed.put(new)
    setup.server.events = [
        {"type": "DELETED", "object": old | {"metadata": old["metadata"] | {"resourceVersion": "7"}}}
    ]
    setup.server.listed = [new]
    await setup.attempt()
    assert (setup.feed.of("a") or {})["metadata"]["uid"] == "new"


async def test_workload_that_a_later_list_lacks_is_removed(setup: Setup) -> None:
    setup.server.listed = [workload("a", 5), workload("b", 6)]
    setup.server.events = GoneError(410, "Expired", "too old")
    await setup.attempt()
    setup.changed.clear()
    setup.server.listed = [workload("b", 6)]
    await setup.attempt()
    assert (setup.feed.of("a"), setup.changed, setup.transitions) == (None, ["a"], 1)


async def test_absence_and_return_of_kueue_are_reported(setup: Setup) -> None:
    setup.server.listed = NotFoundError(404, "NotFound", "404 page not found")
    await setup.attempt()
    await setup.attempt()
    assert (setup.feed.problem or "").startswith("Kueue is not there")
    assert setup.transitions == 1
    setup.server.listed, setup.server.events = [workload("a", 5)], GoneError(410, "Expired", "too old")
    await setup.attempt()
    assert (setup.feed.problem, setup.transitions) == (None, 2)
    setup.server.listed = ForbiddenError(403, "Forbidden", "workloads is forbidden")
    await setup.attempt()
    assert (setup.feed.problem or "").endswith("workloads is forbidden")
    assert (setup.feed.of("a"), setup.transitions) == (None, 3)


async def test_outage_of_the_api_server_is_not_an_absence_of_kueue(setup: Setup) -> None:
    setup.server.listed = [workload("a", 5)]
    setup.server.events = ApiUnreachableError("no answer")
    assert await setup.attempt() > 0
    setup.server.listed = ApiUnreachableError("no answer")
    await setup.attempt()
    assert (setup.feed.problem, setup.feed.of("a") is not None, setup.transitions) == (None, True, 1)


async def test_pending_workloads_are_read_in_the_served_version() -> None:
    server: Any = Server()
    visibility = Visibility(server)
    server.pending = {"v1beta2": NotFoundError(404, "", ""), "v1beta1": [{"x": 1}]}
    assert await visibility.pending("team", "gpus") == [{"x": 1}]
    assert server.gets == [
        f"/apis/visibility.kueue.x-k8s.io/{version}/namespaces/team/localqueues/gpus/pendingworkloads"
        for version in ("v1beta2", "v1beta1")
    ]
    server.pending = {"v1beta2": None}
    assert await visibility.pending("team", "gpus") == []


async def test_failure_of_the_visibility_api_is_logged_once(caplog: Any) -> None:
    server: Any = Server()
    visibility = Visibility(server)
    server.pending = {version: ServerError(503, "", "unavailable") for version in ("v1beta2", "v1beta1")}
    for _ in range(3):
        assert await visibility.pending("team", "gpus") is None
    assert len([record for record in caplog.records if "positions" in record.message]) == 1
