"""A TLS reverse proxy in front of an API server, which counts requests and breaks those that it is told to break.

It runs in a thread of its own, so that tests may block. Bearer tokens and impersonation headers are passed on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp
from aiohttp import web
from yarl import URL

from cluster.pki import Authority
from tests.faults.plan import KILLS, REFUSALS, Action, Fault, Object, Request, WatchFault, parse

T = TypeVar("T")
_PASSED_ON = ("Authorization", "Content-Type", "Accept", "Impersonate-User", "Impersonate-Group")
_PASSED_BACK = ("Content-Type", "Date", "Retry-After", "Audit-Id", "Warning")
_LARGEST = 16 * 1024**2
_DELIVERY = 0.02
"""Seconds an answer gets to reach the client before the client is killed."""
logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # aborted connections are the point


class Proxy:
    """The proxy; start it with `with`.

    Args:
        server: URL of the API server.
        ca: Certificate of its authority.
        folder: Where its own certificates and the kubeconfig go.
        name: Put into the user agent, so that the audit log tells proxies apart.

    Attributes:
        url: Where it listens.
        kill: Kills the client; called from a thread.
        requests: Every request, in the order they came.
        faults: What is done to requests.
        watch_faults: What is done to events.
        down: Resets every connection, streams as well, while set.
        stale: Resources whose lists are answered as `keep_lists` kept them and whose events wait.
        closes_watches: Ends each stream as soon as it began, while set.
    """

    def __init__(self, server: str, ca: Path, folder: Path, name: str = "proxy") -> None:
        self.name, self.url = name, ""
        self.kill: Callable[[], None] = lambda: None
        self.requests: list[Request] = []
        self.events: Counter[tuple[str, str]] = Counter()
        self.faults: list[Fault] = []
        self.watch_faults: list[WatchFault] = []
        self.down = self.closes_watches = False
        self.stale: frozenset[str] = frozenset()
        self._server, self._ca, self._folder = server, ca, folder
        self._authority = Authority(folder / "authority")
        self._lists: dict[str, tuple[bytes, str]] = {}
        self._kept: dict[str, tuple[bytes, str]] = {}
        self._streams: dict[asyncio.Task[None], web.BaseRequest] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def kubeconfig(self, original: Path) -> Path:
        """A kubeconfig with the user of another one (JSON) and this proxy as the server."""
        document = json.loads(original.read_text())
        document["clusters"][0]["cluster"] = {
            "server": self.url,
            "certificate-authority": str(self._authority.certificate),
        }
        path = self._folder / f"{self.name}.kubeconfig"
        path.write_text(json.dumps(document))
        return path

    def writes(self, namespace: str, after: int = 0) -> list[Request]:
        """Writes to a namespace, from the `after`-th request on."""
        return [each for each in self.requests[after:] if each.is_write and each.namespace == namespace]

    def keep_lists(self) -> None:
        """Remember the last answer to each list, for `stale`."""
        self._kept = dict(self._lists)

    def busiest_second(self, after: int = 0) -> int:
        """Most requests in any one second, from the `after`-th request on."""
        return busiest_second(each.at for each in self.requests[after:])

    # --- in the thread ------------------------------------------------------------------------------------------------

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _start(self) -> None:
        upstream = ssl.create_default_context(cafile=str(self._ca))
        connector = aiohttp.TCPConnector(ssl=upstream, limit=0)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        self._upstream = aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=_LARGEST)
        listening = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate, key = self._authority.issue("proxy", f"/CN={self.name}", ["IP:127.0.0.1"])
        listening.load_cert_chain(certificate, key)
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=listening)
        await site.start()
        self.url = f"https://127.0.0.1:{self._runner.addresses[0][1]}"
        self._reaper = asyncio.create_task(self._reap())

    async def _stop(self) -> None:
        self._reaper.cancel()
        for task in list(self._streams):
            task.cancel()
        await self._runner.cleanup()
        await self._upstream.close()

    async def _reap(self) -> None:
        """End the streams of clients that are gone, and all of them in an outage."""
        while True:
            await asyncio.sleep(0.2)
            for task, request in list(self._streams.items()):
                if self.down:
                    _abort(request)
                if self.down or request.transport is None or request.transport.is_closing():
                    task.cancel()

    async def _handle(self, incoming: web.BaseRequest) -> web.StreamResponse:
        body = await incoming.read()
        request = parse(time.monotonic(), incoming.method, incoming.path_qs, body)
        self.requests.append(request)
        if self.down:
            return _abort(incoming)
        if request.watch:
            return await self._watch(incoming, request)
        struck = [fault for fault in self.faults if fault.strikes(request)]
        if struck:
            return await self._break(incoming, body, struck[0].action)
        return await self._forward(incoming, request, body)

    async def _break(self, incoming: web.BaseRequest, body: bytes, action: Action) -> web.StreamResponse:
        if action in REFUSALS:
            return _refusal(*REFUSALS[action])
        if action in (Action.RESET, Action.KILL_BEFORE):
            if action in KILLS:
                await self._kill()
            return _abort(incoming)
        answer = await self._ask(incoming, body)
        if action is Action.KILL_ANSWERED:
            await answer.prepare(incoming)
            await answer.write_eof()
            await asyncio.sleep(_DELIVERY)
            await self._kill()
            return answer
        if action is Action.KILL_COMMITTED:
            await self._kill()
        return _abort(incoming)

    async def _kill(self) -> None:
        await self._loop.run_in_executor(None, self.kill)

    async def _forward(self, incoming: web.BaseRequest, request: Request, body: bytes) -> web.StreamResponse:
        is_list = request.method == "GET" and request.resource and not request.name
        if is_list and request.resource in self.stale and incoming.path in self._kept:
            content, kind = self._kept[incoming.path]
            return web.Response(body=content, headers={"Content-Type": kind})
        answer = await self._ask(incoming, body)
        if is_list and isinstance(answer.body, bytes):
            self._lists[incoming.path] = answer.body, answer.content_type
        return answer

    async def _ask(self, incoming: web.BaseRequest, body: bytes) -> web.Response:
        url = URL(self._server + incoming.raw_path, encoded=True)
        try:
            async with self._upstream.request(
                incoming.method, url, headers=self._headers(incoming), data=body or None
            ) as answer:
                return web.Response(status=answer.status, headers=_back(answer), body=await answer.read())
        except aiohttp.ClientError as error:
            return web.Response(status=502, text=str(error))

    def _headers(self, incoming: web.BaseRequest) -> dict[str, str]:
        kept = {name: incoming.headers[name] for name in _PASSED_ON if name in incoming.headers}
        return kept | {"User-Agent": self.name}

    # --- streams ------------------------------------------------------------------------------------------------------

    async def _watch(self, incoming: web.BaseRequest, request: Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        if self.closes_watches:
            await stream.prepare(incoming)
            return stream
        task = asyncio.create_task(self._stream(incoming, request, stream))
        self._streams[task] = incoming
        try:
            await task
        except asyncio.CancelledError:
            return _abort(incoming)
        except (aiohttp.ClientError, ConnectionResetError):
            return _abort(incoming)
        finally:
            del self._streams[task]
        return stream

    async def _stream(self, incoming: web.BaseRequest, request: Request, stream: web.StreamResponse) -> None:
        url = URL(self._server + incoming.raw_path, encoded=True)
        async with self._upstream.get(url, headers=self._headers(incoming)) as answer:
            stream.set_status(answer.status)
            await stream.prepare(incoming)
            async with asyncio.TaskGroup() as late:
                held: dict[str, list[bytes]] = {}
                while line := await answer.content.readline():
                    while request.resource in self.stale:  # noqa: ASYNC110 set from another thread
                        await asyncio.sleep(0.05)
                    event = json.loads(line)
                    namespace = event.get("object", {}).get("metadata", {}).get("namespace", "")
                    fault = self._struck(request.resource, namespace, event)
                    if namespace in held:
                        held[namespace].append(line)
                    elif fault is None:
                        await stream.write(line)
                    elif fault.hold is not None:
                        held[namespace] = [line]
                        late.create_task(_release(stream, held, namespace, fault.hold))

    def _struck(self, resource: str, namespace: str, event: Any) -> WatchFault | None:
        if event["type"] == "BOOKMARK":
            return None
        self.events[resource, namespace] += 1
        return next((fault for fault in self.watch_faults if fault.strikes(resource, event)), None)


async def _release(stream: web.StreamResponse, held: dict[str, list[bytes]], namespace: str, after: float) -> None:
    """Pass on a namespace's events in their order, late; those of others, which other runs look at, go by."""
    await asyncio.sleep(after)
    while held[namespace]:
        await stream.write(held[namespace].pop(0))
    del held[namespace]


def busiest_second(moments: Iterable[float]) -> int:
    """Most moments in any window of one second."""
    ordered = sorted(moments)
    most = first = 0
    for last, moment in enumerate(ordered):
        while moment - ordered[first] >= 1:
            first += 1
        most = max(most, last - first + 1)
    return most


def _abort(incoming: web.BaseRequest) -> web.Response:
    if incoming.transport is not None:
        incoming.transport.abort()
    return web.Response(status=499)


def _back(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {name: answer.headers[name] for name in _PASSED_BACK if name in answer.headers}


def _refusal(status: int, reason: str) -> web.Response:
    document: Object = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "message": "told to refuse",
        "code": status,
    }
    headers = {"Retry-After": "1"} if status == 429 else {}
    return web.json_response(document, status=status, headers=headers)
