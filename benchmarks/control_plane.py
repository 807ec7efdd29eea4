"""A control plane with fake nodes, configured as for the reference figures, and a client that watches it."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiohttp
from tests.api import kwok_support
from tests.api.gateway_support import Kubernetes

Object = dict[str, Any]
Done = Callable[[], bool]

SHORT, REPORTED, LONG = "bench-short", "bench-reported", "bench-long"
SECONDS = {SHORT: 3, REPORTED: 12}
"""Run time of the pods of a namespace; those in LONG never end."""
CLAIM = "models"
NODES = 16
"""Nodes of 8 GPUs: more than a burst requests, so that the queue admits all of it at once."""
_CONNECTIONS = 110


@contextmanager
def control_plane(name: str) -> Iterator[Kubernetes]:
    """Start a control plane, prepare it, and remove it at the end."""
    with kwok_support.control_plane(name, nodes=NODES, seconds=SECONDS) as kubernetes:
        yield kubernetes


def prepare_namespace(kubernetes: Kubernetes, namespace: str) -> None:
    """Create a namespace with a bound claim for models, rows and runs."""
    kwok_support.prepare_namespace(kubernetes, namespace, CLAIM)


def training_job(namespace: str, name: str, *, gpus: int, suspend: bool = False, **spec: Any) -> Object:
    """Return a TrainingJob for the fake nodes."""
    return kwok_support.training_job(namespace, name, claim=CLAIM, gpus=gpus, suspend=suspend, **spec)


class Api:
    """Asynchronous API client with every permission."""

    def __init__(self, server: str, session: aiohttp.ClientSession) -> None:
        self._server, self._session = server, session
        self.broken_watches: list[str] = []

    async def create(self, path: str, body: Object) -> Object:
        """POST an object and return the created one."""
        async with self._session.post(self._server + path, json=body) as answer:
            document: Object = await answer.json()
            assert answer.status < 300, document
            return document

    async def get(self, path: str) -> Object:
        """GET an object or a list."""
        async with self._session.get(self._server + path) as answer:
            document: Object = await answer.json()
            return document

    async def delete(self, path: str) -> None:
        """DELETE an object or a collection, children in the background."""
        async with self._session.delete(self._server + path, params={"propagationPolicy": "Background"}) as answer:
            await answer.read()

    async def warm(self) -> None:
        """Open the connections that a burst uses."""
        await asyncio.gather(*(self.get("/version") for _ in range(_CONNECTIONS - 10)))

    async def watch(self, path: str, record: Callable[[Object, float], None]) -> None:
        """Pass each changed object and its arrival time (monotonic seconds) to `record`, until cancelled.

        A watch that the server closes is opened again and added to `broken_watches`, since events in between are late.
        """
        while True:
            reason = "the server ended it"
            try:
                reason = await self._watch_once(path, record) or reason
            except aiohttp.ClientError as error:
                reason = str(error) or type(error).__name__
            self.broken_watches.append(f"{path}: {reason}")

    async def _watch_once(self, path: str, record: Callable[[Object, float], None]) -> str | None:
        options = {"watch": "true", "timeoutSeconds": "3600"}
        async with self._session.get(self._server + path, params=options) as answer:
            async for line in answer.content:
                at = time.monotonic()
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return str(event["object"].get("message"))
                record(event["object"], at)
        return None


@asynccontextmanager
async def client(kubernetes: Kubernetes) -> AsyncIterator[Api]:
    """Open an `Api` for the duration of the context."""
    authority = kubernetes.cluster.plane.authority
    pair = authority.issue("admin", "/O=system:masters/CN=admin")
    context = ssl.create_default_context(cafile=str(authority.certificate))
    context.load_cert_chain(*map(str, pair))
    connector = aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=context, keepalive_timeout=300)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=2**22) as session:
        yield Api(kubernetes.cluster.server, session)


async def wait_for(done: Done, seconds: float, what: str) -> bool:
    """Wait for a condition; print a line and return False when the deadline passes."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            print(f"  not within {seconds:.0f} s: {what}", flush=True)
            return False
        await asyncio.sleep(0.05)
    return True
