"""Puts the gateway together and runs it until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Generator
from datetime import UTC, datetime
from functools import partial

import uvicorn
from fastapi import FastAPI

from trainyard_crds import logs
from trainyard_gateway import settings
from trainyard_gateway.api_server import FIELD_MANAGER, LIMITS, ApiServer
from trainyard_gateway.connection_limit import BoundedListener
from trainyard_gateway.errors import SettingsError
from trainyard_gateway.intake.app import health_app, intake_app
from trainyard_gateway.intake.report_service import Intake, Schedule
from trainyard_gateway.intake.status_writer import Writer
from trainyard_gateway.intake.token_review import Tokens
from trainyard_gateway.jobs import JobCache, Reflector
from trainyard_gateway.metrics import Metrics
from trainyard_gateway.settings import Settings
from trainyard_gateway.tls import ServingCertificate
from trainyard_kube.client import KubeClient, connect
from trainyard_kube.clock import ServerClock, monotonic
from trainyard_kube.errors import ConfigurationError

logger = logging.getLogger(__name__)

_SILENCE_LIMIT = 300.0
"""Seconds without a word from the watch after which the process calls itself dead."""
_DRAIN_SECONDS = 5.0


class Gateway:
    """All parts of one gateway process.

    Args:
        kube: The API server.
    """

    def __init__(self, kube: KubeClient) -> None:
        api = ApiServer(kube)
        schedule = Schedule()
        jobs = JobCache()
        self.intake = Intake(jobs, Tokens(api, monotonic), schedule)
        self.reflector = Reflector(kube, jobs, monotonic)
        self.metrics = Metrics(partial(len, jobs), self.silence, lambda: schedule.overdue(monotonic()))
        kube.observe_requests(self.metrics.count_api_request)
        self.writer = Writer(api, jobs, schedule, self.metrics, monotonic)

    def silence(self) -> float:
        """Seconds since the watch was last heard of."""
        return monotonic() - self.reflector.last_contact

    def ready(self) -> bool:
        """Whether the TrainingJobs are known."""
        return self.reflector.synced

    def alive(self) -> bool:
        """Whether the watch of TrainingJobs works."""
        return self.silence() < _SILENCE_LIMIT


class _Server(uvicorn.Server):
    """A server that leaves the process's signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def main() -> int:
    """Run the gateway.

    Returns:
        0 after SIGTERM or SIGINT, 78 when the configuration cannot be used, 1 after a fault.
    """
    try:
        chosen = settings.from_environment(os.environ)
        logs.configure(chosen.log_level, quiet=["uvicorn"])
        asyncio.run(serve(chosen))
    except (SettingsError, ConfigurationError) as error:
        print(f"trainyard-gateway: {error}", file=sys.stderr)  # noqa: T201 - logging may not be set up
        return 78
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
    kube = await connect(chosen.kubeconfig, ServerClock(), FIELD_MANAGER, LIMITS)
    try:
        gateway = Gateway(kube)
        app = intake_app(gateway.intake, gateway, gateway.metrics, lambda: datetime.now(UTC))
        health = health_app(gateway, gateway.metrics.registry)
        listening = _listen(chosen.host, chosen.port, "TRAINYARD_PORT")
        intake = BoundedListener(listening, clock=monotonic, refused=gateway.metrics.connections_refused.inc)
        servers: dict[_Server, socket.socket] = {
            _server(app, certificate.context): intake,
            _server(health, None): _listen(chosen.host, chosen.health_port, "TRAINYARD_HEALTH_PORT"),
        }
        await _run(gateway, certificate, servers)
    finally:
        await kube.close()


async def _run(gateway: Gateway, certificate: ServingCertificate, servers: dict[_Server, socket.socket]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as group:
        parts = (gateway.reflector.run(), gateway.writer.run(), certificate.follow())
        background = [group.create_task(part) for part in parts]
        serving = [group.create_task(server.serve(sockets=[listener])) for server, listener in servers.items()]
        await stop.wait()
        logger.info("stopping: no new reports are taken, what was accepted is written")
        for server in servers:
            server.should_exit = True
        await asyncio.wait(serving)
        await gateway.writer.drain(_DRAIN_SECONDS)
        for task in background:
            task.cancel()


def _listen(host: str, port: int, variable: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise SettingsError(f"{variable}: {host} port {port} cannot be listened on: {error.strerror}.") from error


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
