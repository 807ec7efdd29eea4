"""The port that stands in for ModelDeployments without a replica."""

from __future__ import annotations

import asyncio
import logging
import random

import aiohttp
from aiohttp import web

from trainyard_crds.serving import PROXY_PORT
from trainyard_gateway.activator.deployments import Deployment, Deployments
from trainyard_gateway.activator.metrics import ActivatorMetrics
from trainyard_gateway.activator.scaling import Scaler
from trainyard_gateway.activator.targets import HEADER, target_of
from trainyard_gateway.activator.waiting import FullError, Waiting

logger = logging.getLogger(__name__)

LARGEST_BODY = 32 * 2**20
"""Bytes of a request, as in the proxy of a replica."""
_RETRY_AFTER = "10"
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "content-length",
        "host",
    }
)


class Activator:
    """Holds requests until a replica is ready, and forwards them.

    Args:
        deployments: The ModelDeployments.
        waiting: The waiting requests.
        scaler: Starts replicas.
        session: HTTP client.
        metrics: Counts.
        port: Port of replicas.
    """

    def __init__(
        self,
        deployments: Deployments,
        waiting: Waiting,
        scaler: Scaler,
        session: aiohttp.ClientSession,
        *,
        metrics: ActivatorMetrics,
        port: int = PROXY_PORT,
    ) -> None:
        self._deployments, self._waiting, self._scaler = deployments, waiting, scaler
        self._session, self._metrics, self._port = session, metrics, port

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        return app

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        target = target_of(request.host, request.headers.get(HEADER))
        deployment = None if target is None else self._deployments.get(target)
        if deployment is None:
            return _error(404, "There is no ModelDeployment of that host name.")
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _error(413, f"The request has more than {LARGEST_BODY // 2**20} MiB.")
        if not self._deployments.ready(deployment):
            refused = await self._hold(deployment)
            if refused is not None:
                return refused
        return await self._forward(request, deployment, body)

    async def _hold(self, deployment: Deployment) -> web.Response | None:
        """Wait for a replica; return an answer if there is none in time."""
        scaling, target = deployment.scaling, deployment.target
        if deployment.stopped or scaling is None:
            return _unavailable(f"ModelDeployment {target} has no replica: it is stopped, or scaled to zero by a user.")
        try:
            with self._waiting.place(target, scaling.max_waiting), self._metrics.hold(target):
                self._scaler.wake(deployment)
                async with asyncio.timeout(scaling.timeout_seconds):
                    await self._deployments.wait(lambda: self._is_decided(deployment))
        except FullError:
            self._metrics.refused.inc()
            return _unavailable(f"{scaling.max_waiting} requests wait for ModelDeployment {target} to start already.")
        except TimeoutError:
            return _unavailable(f"ModelDeployment {target} did not start within {scaling.timeout_seconds} s.")
        if not self._deployments.ready(deployment):
            return _unavailable(f"ModelDeployment {target} was stopped or deleted meanwhile.")
        return None

    def _is_decided(self, deployment: Deployment) -> bool:
        """Return whether a replica is ready, or none is to be expected."""
        current = self._deployments.get(deployment.target)
        if current is None or current.uid != deployment.uid or current.stopped:
            return True
        return bool(self._deployments.ready(deployment))

    async def _forward(self, request: web.Request, deployment: Deployment, body: bytes) -> web.StreamResponse:
        replica = random.choice(self._deployments.ready(deployment))
        host = f"[{replica.address}]" if ":" in replica.address else replica.address
        url = f"http://{host}:{self._port}{request.rel_url.raw_path_qs}"
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        response: web.StreamResponse | None = None
        try:
            async with self._session.request(request.method, url, data=body, headers=headers) as answer:
                kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
                response = web.StreamResponse(status=answer.status, headers=kept)
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response
        except (aiohttp.ClientError, TimeoutError) as error:
            logger.warning("the replica of %s did not answer: %s", deployment.target, error)
            if response is None:
                return _unavailable(f"The replica of ModelDeployment {deployment.target} does not answer now.")
            if request.transport is not None:
                request.transport.abort()  # a stream that ends early must not look complete
            return response


def _error(status: int, message: str) -> web.Response:
    kinds = {404: "NotFoundError", 413: "BadRequestError"}
    kind = kinds.get(status, "ServiceUnavailableError")
    return web.json_response(
        {"error": {"message": message, "type": kind, "param": None, "code": status}}, status=status
    )


def _unavailable(message: str) -> web.Response:
    response = _error(503, f"{message} Ask again later.")
    response.headers["Retry-After"] = _RETRY_AFTER
    return response
