"""Connects the parts of the activator."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from trainyard_crds.serving import STATE_PATH, STATUS_PORT, ReplicaState
from trainyard_gateway.activator.app import Activator
from trainyard_gateway.activator.deployments import DEPLOYMENTS, REPLICAS, Deployments
from trainyard_gateway.activator.metrics import ActivatorMetrics
from trainyard_gateway.activator.scaling import Scaler
from trainyard_gateway.activator.waiting import Waiting
from trainyard_kube.client import KubeClient
from trainyard_kube.clock import monotonic
from trainyard_kube.informer import Informer
from trainyard_kube.watch import DirectWatch

_STATE_TIMEOUT = aiohttp.ClientTimeout(total=3)


class ActivatorService:
    """The activator of one gateway process.

    Args:
        kube: The API server, as the gateway's service account.
        registry: Registry of its metrics.
    """

    def __init__(self, kube: KubeClient, registry: CollectorRegistry) -> None:
        self._kube = kube
        self._deployments, self._waiting = Deployments(), Waiting()
        self._metrics = ActivatorMetrics(registry, self._waiting)
        self._watches = [
            DirectWatch(kube, Informer(kube, DEPLOYMENTS, self._deployments.deployments, monotonic), monotonic),
            DirectWatch(kube, Informer(kube, REPLICAS, self._deployments.replicas, monotonic), monotonic),
        ]

    async def run(self, listener: socket.socket) -> None:
        """Serve until cancelled."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False, trust_env=False) as session:
            scaler = Scaler(self._kube, self._deployments, self._waiting, _asker(session), lambda: datetime.now(UTC))
            activator = Activator(self._deployments, self._waiting, scaler, session, metrics=self._metrics)
            runner = web.AppRunner(activator.app(), access_log=None, handler_cancellation=True, shutdown_timeout=5)
            await runner.setup()
            await web.SockSite(runner, listener).start()
            try:
                async with asyncio.TaskGroup() as group:
                    for watch in self._watches:
                        group.create_task(watch.run())
                    group.create_task(scaler.run())
            finally:
                await runner.cleanup()


def _asker(session: aiohttp.ClientSession) -> Callable[[str], Awaitable[ReplicaState | None]]:
    """Return a function that asks the replica at an address for its state."""

    async def ask(address: str) -> ReplicaState | None:
        host = f"[{address}]" if ":" in address else address
        try:
            url = f"http://{host}:{STATUS_PORT}{STATE_PATH}"
            async with session.get(url, timeout=_STATE_TIMEOUT) as answer:
                return ReplicaState.model_validate_json(await answer.read())
        except (aiohttp.ClientError, TimeoutError, ValidationError):
            return None

    return ask
