"""First requests wait for a replica, in bounds; a replica on loopback answers them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry, generate_latest

from trainyard_crds.serving import ReplicaState
from trainyard_gateway.activator.app import Activator
from trainyard_gateway.activator.deployments import Deployments
from trainyard_gateway.activator.metrics import ActivatorMetrics
from trainyard_gateway.activator.scaling import Scaler
from trainyard_gateway.activator.waiting import Waiting
from trainyard_kube.client import KubeClient

HOST = {"Host": "bot.team.svc:8000"}


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until a condition holds."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - the conditions have no event
            await asyncio.sleep(0)


class FakeKube:
    """Records writes of /scale."""

    def __init__(self) -> None:
        self.writes: list[tuple[str, Any]] = []

    async def merge(self, url: str, patch: Any) -> Any:
        self.writes.append((url, patch["spec"]["replicas"]))
        return {}


class Rig:
    """The activator on loopback, and a replica that becomes ready when the test says so."""

    def __init__(self) -> None:
        self.kube, self.deployments, self.waiting = FakeKube(), Deployments(), Waiting()
        self.registry = CollectorRegistry()
        self.seen: list[tuple[str, str]] = []
        self._version = 0

    async def start(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.replica = TestServer(self._replica(), host="127.0.0.1")
        await self.replica.start_server()
        metrics = ActivatorMetrics(self.registry, self.waiting)
        self.scaler = Scaler(
            cast("KubeClient", self.kube), self.deployments, self.waiting, self._ask, lambda: datetime.now(UTC)
        )
        activator = Activator(
            self.deployments, self.waiting, self.scaler, session, metrics=metrics, port=self.replica.port or 0
        )
        self.server = TestServer(activator.app(), host="127.0.0.1")
        await self.server.start_server()

    async def stop(self) -> None:
        await self.server.close()
        await self.replica.close()

    def _replica(self) -> web.Application:
        async def answer(request: web.Request) -> web.Response:
            self.seen.append((request.path_qs, (await request.read()).decode()))
            return web.json_response({"ok": True}, headers={"X-Own": "1"})

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        return app

    async def _ask(self, _address: str) -> ReplicaState | None:
        return None

    def put(self, *, replicas: int = 0, **spec: Any) -> None:
        self._version += 1
        scaling = {"maxWaiting": 5, "timeoutSeconds": 60}
        metadata = {"namespace": "team", "name": "bot", "uid": "u", "resourceVersion": str(self._version)}
        self.deployments.deployments.put(
            {"metadata": metadata, "spec": {"replicas": replicas, "scaleToZero": scaling, **spec}}
        )

    def become_ready(self) -> None:
        self._version += 1
        conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
        metadata = {"name": "bot-1", "namespace": "team", "uid": "p", "resourceVersion": str(self._version)}
        metadata["labels"] = {"trainyard.dev/modeldeployment-uid": "u"}  # type: ignore[assignment]
        self.deployments.replicas.put(
            {"metadata": metadata, "status": {"podIP": "127.0.0.1", "conditions": conditions}}
        )

    async def ask(self, path: str = "/v1/models", **more: Any) -> tuple[int, Any, Any]:
        async with self.session.post(
            self.server.make_url(path), headers=HOST | more.pop("headers", {}), **more
        ) as answer:
            return answer.status, dict(answer.headers), await answer.json()

    async def hold(self, number: int) -> list[asyncio.Task[tuple[int, Any, Any]]]:
        tasks = [asyncio.create_task(self.ask(data=b'{"a": 1}')) for _ in range(number)]
        await until(lambda: sum(self.waiting.all().values()) + sum(task.done() for task in tasks) >= number)
        return tasks


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    found = Rig()
    async with aiohttp.ClientSession() as session:
        await found.start(session)
        yield found
        await found.stop()


async def test_held_requests_are_answered_by_the_first_replica_and_start_it_once(rig: Rig) -> None:
    rig.put()
    tasks = await rig.hold(5)
    await until(lambda: bool(rig.kube.writes))
    rig.put(replicas=1)
    rig.become_ready()
    answers = await asyncio.gather(*tasks)
    assert [status for status, _, _ in answers] == [200] * 5
    assert rig.seen == [("/v1/models", '{"a": 1}')] * 5
    assert rig.kube.writes == [("/apis/trainyard.dev/v1alpha1/namespaces/team/modeldeployments/bot/scale", 1)]


async def test_requests_beyond_the_bound_are_refused_at_once(rig: Rig) -> None:
    rig.put()
    tasks = await rig.hold(200)
    refused = [task.result() for task in tasks if task.done()]
    assert len(refused) == 195
    assert {status for status, _, _ in refused} == {503}
    assert all(headers["Retry-After"] for _, headers, _ in refused)
    assert "5 requests wait for ModelDeployment team/bot" in refused[0][2]["error"]["message"]
    assert (
        'trainyard_gateway_activator_requests_waiting{modeldeployment="bot",namespace="team"} 5.0'
        in generate_latest(rig.registry).decode()
    )
    rig.put(replicas=1)
    rig.become_ready()
    assert [task.result()[0] for task in tasks if await task is not None].count(200) == 5


@pytest.mark.slow
async def test_request_waits_no_longer_than_the_limit(rig: Rig) -> None:
    rig.put(scaleToZero={"maxWaiting": 5, "timeoutSeconds": 5})
    status, headers, body = await rig.ask()
    assert status == 503
    assert headers["Retry-After"]
    assert "did not start within 5 s" in body["error"]["message"]
    assert rig.waiting.all() == {}


async def test_client_that_leaves_frees_its_place(rig: Rig) -> None:
    rig.put()
    [task] = await rig.hold(1)
    task.cancel()
    await until(lambda: not rig.waiting.all())


@pytest.mark.parametrize("spec", [{"stopped": True}, {"scaleToZero": None}])
async def test_one_that_a_user_stopped_is_not_started(rig: Rig, spec: dict[str, Any]) -> None:
    rig.put(**spec)
    status, _, body = await rig.ask()
    assert status == 503
    assert "stopped, or scaled to zero by a user" in body["error"]["message"]
    assert rig.kube.writes == []


async def test_one_that_is_stopped_meanwhile_answers_those_who_wait(rig: Rig) -> None:
    rig.put()
    [task] = await rig.hold(1)
    rig.put(stopped=True)
    status, _, _ = await task
    assert status == 503


async def test_ready_replica_gets_late_requests_at_once(rig: Rig) -> None:
    rig.put(replicas=1)
    rig.become_ready()
    status, headers, _ = await rig.ask("/v1/chat/completions?x=%2F", data=b"{}")
    assert (status, headers["X-Own"]) == (200, "1")
    assert rig.seen == [("/v1/chat/completions?x=/", "{}")]
    assert rig.kube.writes == []


async def test_unknown_host_and_header_of_a_route(rig: Rig) -> None:
    rig.put(replicas=1)
    rig.become_ready()
    assert (await rig.ask(headers={"Host": "absent.team"}))[0] == 404
    route = {"Host": "chat.example.com", "x-trainyard-deployment": "team/bot"}
    assert (await rig.ask(headers=route))[0] == 200
