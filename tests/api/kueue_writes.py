"""What the operator writes to Jobs and Workloads while Kueue decides: seen by a proxy between it and the API server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.api.gateway_support import Kubernetes
from tests.faults.proxy import Proxy

Object = dict[str, Any]


class Recorder(Proxy):
    """The API server, with a look at what is written to it.

    Attributes:
        patches: Bodies of patches and replacements, by resource.
    """

    def __init__(self, kubernetes: Kubernetes, folder: Path) -> None:
        super().__init__(kubernetes.cluster.server, kubernetes.cluster.ca, folder, "front")
        self.patches: list[tuple[str, Object]] = []

    async def _handle(self, incoming: web.BaseRequest) -> web.StreamResponse:
        parts = incoming.path.strip("/").split("/")
        if incoming.method in ("PATCH", "PUT"):
            self.patches.append((parts[-2] if parts[-1] != "status" else "status", json.loads(await incoming.read())))
        return await super()._handle(incoming)

    def check_writes(self) -> None:
        """Of Jobs labels only, never `spec.suspend` or the template; of Workloads `active` with its mark, or queue."""
        jobs = [body for resource, body in self.patches if resource == "jobs"]
        assert all(body.keys() == {"metadata"} and body["metadata"].keys() == {"labels"} for body in jobs), jobs
        workloads = [body for resource, body in self.patches if resource == "workloads"]
        held = [body for body in workloads if body["spec"].keys() == {"active"} and body.keys() == {"metadata", "spec"}]
        moved = [body for body in workloads if body.keys() == {"spec"} and body["spec"].keys() == {"queueName"}]
        assert len(held) + len(moved) == len(workloads), workloads
