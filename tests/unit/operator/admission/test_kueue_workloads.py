"""Workloads are followed where Kueue is there, came or went; places are asked for in the versions there are."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from tests.unit.operator.admission.workloads import workload
from trainyard_kube.errors import ApiError, ApiUnreachableError, ForbiddenError, NotFoundError, ServerError
from trainyard_operator.admission.kueue_workloads import Visibility, WorkloadFeed

Object = dict[str, Any]


class Server:
    """Answers lists and watches as it was told to."""

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
        assert version == "10"
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


class Followed:
    def __init__(self) -> None:
        self.server, self.changed, self.turns = Server(), [], 0
        kube: Any = self.server
        self.feed = WorkloadFeed(kube, changed=self.changed.append, turned=self._turn)

    changed: list[str]

    def _turn(self) -> None:
        self.turns += 1


async def test_a_list_and_then_events_by_the_uid_of_the_job() -> None:
    followed = Followed()
    followed.server.listed = [workload("a", 5), workload("b", 6), workload("over", 7, finished=True)]
    followed.server.events = [
        {"type": "BOOKMARK", "object": {}},
        {"type": "MODIFIED", "object": workload("a", 11, finished=True)},
        {"type": "DELETED", "object": workload("b", 12)},
        {"type": "ADDED", "object": workload("c", 13)},
        {"type": "MODIFIED", "object": workload("c", 12, name="older")},
    ]
    assert not followed.feed.listed
    await followed.feed._once()
    assert (followed.feed.listed, followed.feed.problem, followed.turns) == (True, None, 1)
    assert [followed.feed.of(uid) is not None for uid in ("a", "b", "over", "c")] == [False, False, False, True]
    assert set(followed.changed) == {"a", "b", "over", "c"} - {"over"}
    kept = followed.feed.of("c") or {}
    assert kept["metadata"]["name"] == "w"
    assert kept["metadata"]["annotations"] == {"trainyard.dev/held": "true"}
    assert "podSets" not in kept["spec"]
    assert "admission" not in kept["status"]


async def test_what_a_later_list_lacks_is_gone() -> None:
    followed = Followed()
    followed.server.listed = [workload("a", 5), workload("b", 6)]
    await followed.feed._once()
    followed.changed.clear()
    followed.server.listed = [workload("b", 6)]
    await followed.feed._once()
    assert (followed.feed.of("a"), followed.changed, followed.turns) == (None, ["a"], 1)


async def test_kueue_is_not_there_then_comes_and_goes() -> None:
    followed = Followed()
    followed.server.listed = NotFoundError(404, "NotFound", "404 page not found")
    await followed.feed._once()
    await followed.feed._once()
    assert (followed.feed.problem or "").startswith("Kueue is not there")
    assert followed.turns == 1
    followed.server.listed = [workload("a", 5)]
    await followed.feed._once()
    assert (followed.feed.problem, followed.turns) == (None, 2)
    followed.server.listed = ForbiddenError(403, "Forbidden", "workloads is forbidden")
    await followed.feed._once()
    assert (followed.feed.problem or "").endswith("workloads is forbidden")
    assert (followed.feed.of("a"), followed.turns) == (None, 3)


async def test_an_outage_of_the_api_server_is_not_an_absence_of_kueue() -> None:
    followed = Followed()
    followed.server.listed = [workload("a", 5)]
    followed.server.events = ApiUnreachableError("no answer")
    assert await followed.feed._once() > 0
    followed.server.listed = ApiUnreachableError("no answer")
    await followed.feed._once()
    assert (followed.feed.problem, followed.feed.of("a") is not None, followed.turns) == (None, True, 1)


async def test_an_error_in_the_stream_leads_to_a_new_list() -> None:
    followed = Followed()
    followed.server.events = [
        {"type": "ERROR", "object": {"code": 410}},
        {"type": "ADDED", "object": workload("a", 11)},
    ]
    await followed.feed._once()
    assert followed.feed.of("a") is None


async def test_places_in_the_version_that_is_served() -> None:
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


async def test_places_that_cannot_be_known_are_logged_once(caplog: Any) -> None:
    server: Any = Server()
    visibility = Visibility(server)
    server.pending = {version: ServerError(503, "", "unavailable") for version in ("v1beta2", "v1beta1")}
    for _ in range(3):
        assert await visibility.pending("team", "gpus") is None
    assert len([record for record in caplog.records if "places" in record.message]) == 1
