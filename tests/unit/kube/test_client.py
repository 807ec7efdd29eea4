"""Requests, their paths and their errors."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from trainyard_kube.client import KubeClient, connect
from trainyard_kube.clock import ServerClock
from trainyard_kube.errors import (
    ApiUnreachableError,
    ConfigurationError,
    ConflictError,
    GoneError,
    LeadershipLostError,
    ServerError,
    ThrottledError,
    status_error,
)
from trainyard_kube.paths import CONFIG_MAPS, PODS, group_version_plural, path, resource_of


class Unused:
    """A transport that must not be used."""

    async def param_serialize(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("a request was made")


async def test_write_fence_prevents_writes_and_permits_reads() -> None:
    kube = KubeClient(Unused(), ServerClock(), "manager")

    def check() -> None:
        raise LeadershipLostError("old")

    kube.set_write_fence(check)
    for write in (kube.create, kube.replace, kube.merge, kube.apply):
        with pytest.raises(LeadershipLostError):
            await write("/api/v1/x", {})
    with pytest.raises(LeadershipLostError):
        await kube.delete("/api/v1/x")
    with pytest.raises(AssertionError, match="was made"):
        await kube.get("/api/v1/x")


def test_each_status_has_an_error_class() -> None:
    assert isinstance(status_error(409, "Conflict", "m"), ConflictError)
    assert isinstance(status_error(503, "", "m"), ServerError)
    assert str(status_error(418, "", "short and stout")) == "418: short and stout"


def test_paths_are_quoted() -> None:
    assert path(PODS, "team", "a", "log") == "/api/v1/namespaces/team/pods/a/log"
    assert path(CONFIG_MAPS) == "/api/v1/configmaps"
    assert path(PODS, "a/b", "../c") == "/api/v1/namespaces/a%2Fb/pods/..%2Fc"


def test_parts_of_a_path_are_found() -> None:
    assert group_version_plural("/apis/batch/v1/jobs") == ("batch", "v1", "jobs")
    assert group_version_plural("/api/v1/nodes") == ("", "v1", "nodes")
    assert resource_of("/api/v1/namespaces/team/pods/a/log") == "pods/log"
    assert resource_of("/apis/batch/v1/jobs") == "jobs"
    assert resource_of("/readyz") == ""


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def connected(folder: Path, handler: Handler) -> AsyncIterator[KubeClient]:
    """A client of a server that answers every request with `handler`."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server = f"http://127.0.0.1:{runner.addresses[0][1]}"
    document = {
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (folder / "kubeconfig").write_text(json.dumps(document))
    kube = await connect(str(folder / "kubeconfig"), ServerClock(), "manager")
    try:
        yield kube
    finally:
        await kube.close()
        await runner.cleanup()


def streaming(*lines: bytes) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for line in lines:
            await response.write(line)
        return response

    return answer


async def watch(kube: KubeClient) -> list[Any]:
    async with aclosing(kube.watch("/api/v1/pods", (), "7", 5)) as events:
        return [event["object"] async for event in events]


async def test_list_reads_all_pages(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        page = request.query.get("continue", "0")
        token = {"continue": "1"} if page == "0" else {}
        return web.json_response({"items": [page], "metadata": {"resourceVersion": "9", **token}})

    async with connected(tmp_path, answer) as kube:
        items, version = await kube.list_all("/api/v1/pods")
        assert (json.dumps(items), version) == ('["0", "1"]', "9")
        assert await kube.list_all("/api/v1/pods", (), len) == ([1, 1], "9")


async def test_watch_yields_long_lines_and_drops_an_incomplete_one(tmp_path: Path) -> None:
    long = "x" * 300_000
    lines = [json.dumps({"type": "ADDED", "object": text}).encode() + b"\n" for text in (long, "short")]
    async with connected(tmp_path, streaming(*lines, b'{"type": "ADDED", "obj')) as kube:
        assert await watch(kube) == [long, "short"]


async def test_error_event_of_a_watch_is_raised(tmp_path: Path) -> None:
    event = {"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old"}}
    async with connected(tmp_path, streaming(json.dumps(event).encode() + b"\n")) as kube:
        with pytest.raises(GoneError, match="410 Expired: too old"):
            await watch(kube)


async def test_requests_are_reported_and_writes_have_a_field_manager(tmp_path: Path) -> None:
    queries: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        queries.append(request.query_string)
        return web.json_response({"reason": "Conflict", "message": "changed"}, status=409)

    observed: list[tuple[str, str, str]] = []
    async with connected(tmp_path, answer) as kube:
        kube.observe_requests(lambda *request: observed.append(request))
        with pytest.raises(ConflictError, match="409 Conflict: changed"):
            await kube.merge(path(PODS, "team", "a", "status"), {})
        with pytest.raises(ConflictError):
            await watch(kube)
    assert observed == [("PATCH", "pods/status", "409"), ("WATCH", "pods", "409")]
    assert queries[0] == "fieldManager=manager&fieldValidation=Strict"


async def test_throttled_client_pauses_as_the_server_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "7"}, text="slow down")

    pauses: list[float] = []
    async with connected(tmp_path, answer) as kube:
        monkeypatch.setattr(kube._limiter, "pause", pauses.append)
        with pytest.raises(ThrottledError, match="429: slow down"):
            await kube.get("/api/v1/pods")
    assert pauses == [7.0]


async def test_denial_with_the_code_of_throttling_does_not_pause_the_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(_: web.Request) -> web.Response:
        status = {"code": 429, "message": 'admission webhook "closed.example" denied the request: later'}
        return web.json_response(status, status=429, headers={"Retry-After": "7"})

    async with connected(tmp_path, answer) as kube:
        monkeypatch.setattr(kube._limiter, "pause", lambda _: pytest.fail("the client pauses"))
        with pytest.raises(ThrottledError) as caught:
            await kube.create("/apis/batch/v1/namespaces/team/jobs", {})
    assert caught.value.is_denial


async def test_answer_that_is_not_json_counts_as_none(tmp_path: Path) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="{")

    async with connected(tmp_path, answer) as kube:
        with pytest.raises(ApiUnreachableError, match="is not JSON"):
            await kube.get("/api/v1/pods")


async def test_server_that_does_not_listen_is_unreachable(tmp_path: Path) -> None:
    async with connected(tmp_path, streaming()) as kube:
        kube._api.configuration.host = "http://127.0.0.1:1"
        observed: list[tuple[str, str, str]] = []
        kube.observe_requests(lambda *request: observed.append(request))
        with pytest.raises(ApiUnreachableError, match="GET /api/v1/pods got no answer"):
            await kube.get("/api/v1/pods")
        with pytest.raises(ApiUnreachableError, match="the watch of /api/v1/pods broke off"):
            await watch(kube)
    assert observed == [("GET", "pods", "none"), ("WATCH", "pods", "none")]


async def test_unusable_kubeconfig_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="set KUBECONFIG to a kubeconfig file"):
        await connect(str(tmp_path / "none"), ServerClock(), "manager")
