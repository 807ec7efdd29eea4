"""Simulated trainers: they report to the gateway like real ones while their pods run."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter

import aiohttp
from tests.api.gateway_support import Gateway, report

from benchmarks.control_plane import REPORTED, SECONDS, Api, Object
from trainyard_crds.constants import JOB_NAME_LABEL, JOB_UID_LABEL, progress_audience, progress_path

_STAGES = ("Downloading", "PreparingData", "LoadingModel", "Training")
_EVERY = 2.0
"""Seconds between two reports of a trainer."""


class PlayedTrainers:
    """One task for each pod that runs.

    Args:
        api: Asks for the token that the kubelet would mount.
        gateway: Where reports go.
    """

    def __init__(self, api: Api, gateway: Gateway) -> None:
        self._api, self._gateway = api, gateway
        self._tasks: set[asyncio.Task[None]] = set()
        self.accepted = 0
        self.refused: Counter[int] = Counter()
        context = ssl.create_default_context(cafile=str(gateway.ca))
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))

    def start(self, pod: Object) -> None:
        """Start the trainer of a running pod."""
        self._tasks.add(asyncio.create_task(self._train(pod)))

    async def close(self) -> None:
        """Wait for the last reports."""
        await asyncio.gather(*self._tasks)
        await self._session.close()

    async def _train(self, pod: Object) -> None:
        labels, namespace = pod["metadata"]["labels"], pod["metadata"]["namespace"]
        token = await self._token(pod, progress_audience(labels[JOB_UID_LABEL]))
        url = self._gateway.url(progress_path(namespace, labels[JOB_NAME_LABEL]))
        trained = int((SECONDS[REPORTED] - 2) / _EVERY)
        plan = [*((stage, 0, 0.3) for stage in _STAGES), *(("Training", step, _EVERY) for step in range(1, trained))]
        for sequence, (stage, step, pause) in enumerate([*plan, ("Saving", trained, 0.1), ("Finished", trained, 0.0)]):
            await self._post(url, token, report(sequence, step, stage=stage))
            await asyncio.sleep(pause)

    async def _token(self, pod: Object, audience: str) -> str:
        metadata = pod["metadata"]
        bound = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [audience], "expirationSeconds": 3600, "boundObjectRef": bound},
        }
        path = f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/default/token"
        return str((await self._api.create(path, body))["status"]["token"])

    async def _post(self, url: str, token: str, body: Object) -> None:
        """Send a report; retry once if the gateway does not know the attempt yet."""
        for _ in range(3):
            async with self._session.post(url, json=body, headers={"Authorization": f"Bearer {token}"}) as answer:
                if answer.status == 200:
                    self.accepted += 1
                    return
                self.refused[answer.status] += 1
                if answer.status != 503:
                    return
                await asyncio.sleep(float(answer.headers.get("Retry-After", "1")))
