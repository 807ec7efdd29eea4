"""Entry point: starts the intake, the REST API and the health port, and stops them on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Coroutine, Generator
from contextlib import AsyncExitStack

import uvicorn
from fastapi import FastAPI

from trainyard_crds import logs
from trainyard_gateway import settings
from trainyard_gateway.activator.wiring import ActivatorService
from trainyard_gateway.api.app import create_api_app
from trainyard_gateway.connection_limit import API_LIMIT, INTAKE_LIMIT, BoundedListener
from trainyard_gateway.errors import SettingsError
from trainyard_gateway.health import create_health_app
from trainyard_gateway.intake.api_requests import FIELD_MANAGER, LIMITS
from trainyard_gateway.intake.wiring import Intake
from trainyard_gateway.listening import listening_socket
from trainyard_gateway.services.objects import UserObjects
from trainyard_gateway.settings import Settings
from trainyard_gateway.tls import ServingCertificate
from trainyard_kube.client import connect
from trainyard_kube.clock import ServerClock, monotonic
from trainyard_kube.errors import ConfigurationError
from trainyard_kube.user_client import UserClient, connect_users

logger = logging.getLogger(__name__)

_DRAIN_SECONDS = 5.0


class _Server(uvicorn.Server):
    """A server that does not handle the signals of the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


_Listeners = dict[_Server, socket.socket]


def main() -> int:
    """Run the gateway.

    Returns:
        0 after SIGTERM or SIGINT, 78 for a configuration that cannot be used, 1 after a fault.
    """
    try:
        chosen = settings.load()
        logs.configure(chosen.log_level, quiet=["uvicorn"])
        asyncio.run(serve(chosen))
    except (SettingsError, ConfigurationError) as error:
        print(f"trainyard-gateway: {error}", file=sys.stderr)  # noqa: T201 - logging may not be set up
        return os.EX_CONFIG
    except ExceptionGroup:
        logger.exception("the gateway stops: one of its parts failed")
        return 1
    return 0


async def serve(chosen: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        SettingsError: the certificate or a port cannot be used.
        ConfigurationError: neither a kubeconfig file nor a service account can be used.
        ExceptionGroup: a part of the gateway failed.
    """
    certificate = ServingCertificate(chosen.certificate, chosen.key)
    async with AsyncExitStack() as stack:
        kube = await connect(chosen.kubeconfig, ServerClock(), FIELD_MANAGER, LIMITS)
        stack.push_async_callback(kube.close)
        users = await connect_users(chosen.kubeconfig)
        stack.push_async_callback(users.close)
        intake = Intake(kube)
        activator = ActivatorService(kube, intake.metrics.registry)
        listener = listening_socket(chosen.host, chosen.activator_port, "TRAINYARD_ACTIVATOR_PORT")
        servers = _servers(chosen, intake, users, certificate.context)
        await _run(intake, activator.run(listener), certificate, servers)


def _servers(chosen: Settings, intake: Intake, users: UserClient, context: ssl.SSLContext) -> _Listeners:
    """Create the servers of the three ports with their listening sockets."""

    def bounded(port: int, variable: str, limit: int) -> BoundedListener:
        refused = intake.metrics.connections_refused.inc
        return BoundedListener(
            listening_socket(chosen.host, port, variable), clock=monotonic, refused=refused, limit=limit
        )

    api = create_api_app(UserObjects(users))
    health = create_health_app(intake, intake.metrics.registry)
    return {
        _server(intake.app(), context): bounded(chosen.port, "TRAINYARD_PORT", INTAKE_LIMIT),
        _server(api, context): bounded(chosen.api_port, "TRAINYARD_API_PORT", API_LIMIT),
        _server(health, None): listening_socket(chosen.host, chosen.health_port, "TRAINYARD_HEALTH_PORT"),
    }


async def _run(
    intake: Intake, activator: Coroutine[None, None, None], certificate: ServingCertificate, servers: _Listeners
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as group:
        parts = (intake.watch.run(), intake.writer.run(), certificate.watch(), activator)
        background = [group.create_task(part) for part in parts]
        serving = [group.create_task(server.serve(sockets=[listener])) for server, listener in servers.items()]
        await stop.wait()
        logger.info("stopping: the ports close, accepted reports are written")
        for server in servers:
            server.should_exit = True
        await asyncio.wait(serving)
        await intake.writer.drain(_DRAIN_SECONDS)
        for task in background:
            task.cancel()


def _server(app: FastAPI, context: ssl.SSLContext | None) -> _Server:
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=5,
        ssl_context_factory=None if context is None else lambda config, default: context,
    )
    return _Server(config)
