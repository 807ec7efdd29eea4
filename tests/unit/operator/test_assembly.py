"""The assembled operator, as far as it runs without an API server."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Literal

import aiohttp
import pytest

from tests.unit.timeouts import TIMEOUT
from trainyard_kube.client import KubeClient
from trainyard_kube.clock import ServerClock
from trainyard_kube.errors import NotFoundError
from trainyard_operator.assembly import Operator
from trainyard_operator.errors import ClusterNotReadyError
from trainyard_operator.main import check_cluster
from trainyard_operator.settings import Settings


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Unreachable:
    """A transport without an API server."""

    async def param_serialize(self, *_args: Any, **_values: Any) -> Any:
        raise OSError("no API server")


@pytest.mark.parametrize("mode", ["Builtin", "Kueue"])
async def test_operator_serves_probes_while_it_waits_for_the_lease(mode: Literal["Builtin", "Kueue"]) -> None:
    settings = Settings(
        namespace="system",
        trainer_image="trainer",
        operator_image="operator",
        serving_gpu_image="vllm",
        serving_cpu_image="server",
        health_port=free_port(),
        queue_mode=mode,
    )
    stop = asyncio.Event()
    kube = KubeClient(Unreachable(), ServerClock(), "test")
    running = asyncio.create_task(Operator(settings, kube, ServerClock(), stop).run())
    url = f"http://127.0.0.1:{settings.health_port}"
    async with asyncio.timeout(TIMEOUT), aiohttp.ClientSession() as session:
        while not running.done():
            try:
                async with session.get(f"{url}/readyz") as answer:
                    assert answer.status == 200
                    break
            except aiohttp.ClientError:
                await asyncio.sleep(0.01)
        async with session.get(f"{url}/metrics") as answer:
            assert "trainyard_leader 0.0" in await answer.text()
        async with session.get(f"{url}/queue") as answer:
            assert (await answer.json())["waiting"] == []
    stop.set()
    await asyncio.wait_for(running, TIMEOUT)


class Served:
    """An API server that serves some resources."""

    def __init__(self, names: list[str] | None) -> None:
        self._names = names

    async def get(self, _url: str) -> Any:
        if self._names is None:
            raise NotFoundError(404, "NotFound", "not found")
        return {"resources": [{"name": name} for name in self._names]}


@pytest.mark.parametrize("names", [None, [], ["others"]])
async def test_cluster_without_the_crd_is_refused(names: list[str] | None) -> None:
    server: Any = Served(names)
    with pytest.raises(ClusterNotReadyError, match="Install the CRD first"):
        await check_cluster(server)


async def test_cluster_with_the_crd_is_accepted() -> None:
    server: Any = Served(["trainingjobs", "trainingjobs/status"])
    await check_cluster(server)
