"""/healthz, /readyz, /metrics and JSON views over plain HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_BEAT, LONGEST_LAG = 1.0, 5.0

Check = Callable[[], str | None]
"""Returns None while all is well, else a sentence about the problem."""

View = Callable[[], dict[str, Any]]


class Heartbeat:
    """Measures the lag of the event loop.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lag = 0.0

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            began = self._clock()
            await asyncio.sleep(_BEAT)
            self._lag = max(0.0, self._clock() - began - _BEAT)

    def check(self) -> str | None:
        """Return a sentence if the last measured lag was too long."""
        return f"the event loop was {self._lag:.1f} s late" if self._lag > LONGEST_LAG else None


class HealthServer:
    """HTTP server of probes, metrics and views.

    Args:
        checks: Checks of /healthz, by name.
        ready: Check of /readyz.
        registry: Metrics of /metrics.
        views: JSON documents, by path.
        port: TCP port.
    """

    def __init__(
        self,
        *,
        checks: Mapping[str, Check],
        ready: Check,
        registry: CollectorRegistry,
        views: Mapping[str, View],
        port: int,
    ) -> None:
        self._checks, self._ready, self._registry, self._port = checks, ready, registry, port
        application = web.Application()
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/metrics", self._metrics)
        for path, view in views.items():
            application.router.add_get(path, _json(view))
        self._runner = web.AppRunner(application, access_log=None)

    async def start(self) -> None:
        """Open the port.

        Raises:
            OSError: the port cannot be used.
        """
        await self._runner.setup()
        await web.TCPSite(self._runner, port=self._port).start()

    async def stop(self) -> None:
        """Close the port."""
        await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        problems = [f"{name}: {text}" for name, check in self._checks.items() if (text := check()) is not None]
        return web.Response(status=503 if problems else 200, text="\n".join(problems) or "ok")

    async def _readyz(self, _: web.Request) -> web.Response:
        problem = self._ready()
        return web.Response(status=503 if problem else 200, text=problem or "ok")

    async def _metrics(self, _: web.Request) -> web.Response:
        body = generate_latest(self._registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _json(view: View) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(view())

    return answer
