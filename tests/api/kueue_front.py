"""Endpoints of Kueue that the API server calls, for tests without Kueue: its visibility API and webhooks."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.api.gateway_support import Kubernetes
from tests.api.kueue_writes import Recorder

Object = dict[str, Any]
WEBHOOKS = {"vjob.kb.io": ("batch", "v1", "jobs"), "vworkload.kb.io": ("kueue.x-k8s.io", "v1beta2", "workloads")}
"""Kueue's webhooks: group, version and resource that each sees."""


class Front(Recorder):
    """The API server with the visibility API beside it.

    Attributes:
        positions: Answers for a LocalQueue; None while the API is not installed.
        polls: Requested LocalQueues, with the API version and the time.
    """

    def __init__(self, kubernetes: Kubernetes, folder: Path) -> None:
        super().__init__(kubernetes, folder)
        self.positions: Callable[[str, str], list[Object]] | None = None
        self.version = "v1beta2"
        self.polls: list[tuple[str, str, float]] = []

    async def _handle(self, incoming: web.BaseRequest) -> web.StreamResponse:
        parts = incoming.path.strip("/").split("/")
        if parts[:2] == ["apis", "visibility.kueue.x-k8s.io"]:
            return await self._visible(parts[2], parts[4], parts[6])
        return await super()._handle(incoming)

    async def _visible(self, version: str, namespace: str, queue: str) -> web.Response:
        self.polls.append((version, f"{namespace}/{queue}", time.monotonic()))
        if self.positions is None or version != self.version:
            return web.Response(status=404, text="404 page not found\n")
        items = await self._loop.run_in_executor(None, self.positions, namespace, queue)
        document = {"kind": "PendingWorkloadsSummary", "apiVersion": f"visibility.kueue.x-k8s.io/{version}"}
        return web.json_response({**document, "metadata": {}, "items": items})
