"""A TLS reverse proxy in front of an API server that records requests and injects faults.

It runs in its own thread, so that tests may block. It forwards bearer tokens and impersonation headers.
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
_FORWARDED_HEADERS = ("Authorization", "Content-Type", "Accept", "Impersonate-User", "Impersonate-Group")
_RETURNED_HEADERS = ("Content-Type", "Date", "Retry-After", "Audit-Id", "Warning")
_MAX_LINE_BYTES = 16 * 1024**2
_DELIVERY_SECONDS = 0.02
"""Time for an answer to reach the client before the client is killed."""
logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # aborted connections are expected


class Proxy:
    """The proxy; start it with `with`.

    Args:
        server: URL of the API server.
        ca: Its CA certificate.
        folder: Folder of the proxy's certificates and kubeconfig.
        name: User agent of forwarded requests, which distinguishes proxies in the audit log.

    Attributes:
        url: URL of the proxy.
        kill: Kills the client; called from a thread.
        requests: Every request in order of arrival.
        faults: Faults of requests.
        watch_faults: Faults of watch events.
        down: While set, every connection and stream is reset.
        stale: Resources whose lists are answered from `save_lists` and whose events are delayed.
        closes_watches: While set, each watch is closed immediately.
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
        self._saved: dict[str, tuple[bytes, str]] = {}
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
        """Write a kubeconfig with the user of another one (JSON) and this proxy as the server."""
        document = json.loads(original.read_text())
        document["clusters"][0]["cluster"] = {
            "server": self.url,
            "certificate-authority": str(self._authority.certificate),
        }
        path = self._folder / f"{self.name}.kubeconfig"
        path.write_text(json.dumps(document))
        return path

    def writes(self, namespace: str, after: int = 0) -> list[Request]:
        """Return the writes to a namespace, from request number `after` on."""
        return [each for each in self.requests[after:] if each.is_write and each.namespace == namespace]

    def save_lists(self) -> None:
        """Save the last answer to each list, for `stale`."""
        self._saved = dict(self._lists)

    def busiest_second(self, after: int = 0) -> int:
        """Return the most requests in any one second, from request number `after` on."""
        return busiest_second(each.at for each in self.requests[after:])

    # --- in the thread ------------------------------------------------------------------------------------------------

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _start(self) -> None:
        upstream = ssl.create_default_context(cafile=str(self._ca))
        connector = aiohttp.TCPConnector(ssl=upstream, limit=0)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        self._upstream = aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=_MAX_LINE_BYTES)
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
        """Close the streams of disconnected clients, and all streams during an outage."""
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
        matching = [fault for fault in self.faults if fault.matches(request)]
        if matching:
            return await self._inject(incoming, body, matching[0].action)
        return await self._forward(incoming, request, body)

    async def _inject(self, incoming: web.BaseRequest, body: bytes, action: Action) -> web.StreamResponse:
        if action in REFUSALS:
            return _refusal(*REFUSALS[action])
        if action in (Action.RESET, Action.KILL_BEFORE):
            if action in KILLS:
                await self._kill()
            return _abort(incoming)
        answer = await self._request(incoming, body)
        if action is Action.KILL_ANSWERED:
            await answer.prepare(incoming)
            await answer.write_eof()
            await asyncio.sleep(_DELIVERY_SECONDS)
            await self._kill()
            return answer
        if action is Action.KILL_COMMITTED:
            await self._kill()
        return _abort(incoming)

    async def _kill(self) -> None:
        await self._loop.run_in_executor(None, self.kill)

    async def _forward(self, incoming: web.BaseRequest, request: Request, body: bytes) -> web.StreamResponse:
        is_list = request.method == "GET" and request.resource and not request.name
        if is_list and request.resource in self.stale and incoming.path in self._saved:
            content, kind = self._saved[incoming.path]
            return web.Response(body=content, headers={"Content-Type": kind})
        answer = await self._request(incoming, body)
        if is_list and isinstance(answer.body, bytes):
            self._lists[incoming.path] = answer.body, answer.content_type
        return answer

    async def _request(self, incoming: web.BaseRequest, body: bytes) -> web.Response:
        url = URL(self._server + incoming.raw_path, encoded=True)
        try:
            async with self._upstream.request(
                incoming.method, url, headers=self._headers(incoming), data=body or None
            ) as answer:
                return web.Response(status=answer.status, headers=_back(answer), body=await answer.read())
        except aiohttp.ClientError as error:
            return web.Response(status=502, text=str(error))

    def _headers(self, incoming: web.BaseRequest) -> dict[str, str]:
        kept = {name: incoming.headers[name] for name in _FORWARDED_HEADERS if name in incoming.headers}
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
            async with asyncio.TaskGroup() as releases:
                delayed: dict[str, list[bytes]] = {}
                while line := await answer.content.readline():
                    while request.resource in self.stale:  # noqa: ASYNC110 set from another thread
                        await asyncio.sleep(0.05)
                    event = json.loads(line)
                    namespace = event.get("object", {}).get("metadata", {}).get("namespace", "")
                    fault = self._matching_fault(request.resource, namespace, event)
                    if namespace in delayed:
                        delayed[namespace].append(line)
                    elif fault is None:
                        await stream.write(line)
                    elif fault.hold is not None:
                        delayed[namespace] = [line]
                        releases.create_task(_release(stream, delayed, namespace, fault.hold))

    def _matching_fault(self, resource: str, namespace: str, event: Any) -> WatchFault | None:
        if event["type"] == "BOOKMARK":
            return None
        self.events[resource, namespace] += 1
        return next((fault for fault in self.watch_faults if fault.matches(resource, event)), None)


async def _release(stream: web.StreamResponse, delayed: dict[str, list[bytes]], namespace: str, after: float) -> None:
    """Forward the delayed events of a namespace in order; events of other namespaces are not delayed."""
    await asyncio.sleep(after)
    while delayed[namespace]:
        await stream.write(delayed[namespace].pop(0))
    del delayed[namespace]


def busiest_second(times: Iterable[float]) -> int:
    """Return the most times within any window of one second."""
    ordered = sorted(times)
    most = first = 0
    for last, at in enumerate(ordered):
        while at - ordered[first] >= 1:
            first += 1
        most = max(most, last - first + 1)
    return most


def _abort(incoming: web.BaseRequest) -> web.Response:
    if incoming.transport is not None:
        incoming.transport.abort()
    return web.Response(status=499)


def _back(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {name: answer.headers[name] for name in _RETURNED_HEADERS if name in answer.headers}


def _refusal(status: int, reason: str) -> web.Response:
    document: Object = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "message": "injected fault",
        "code": status,
    }
    headers = {"Retry-After": "1"} if status == 429 else {}
    return web.json_response(document, status=status, headers=headers)
