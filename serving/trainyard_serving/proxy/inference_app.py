"""The port for clients: passes inference to the engine, and nothing else."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

import aiohttp
from aiohttp import web

from trainyard_serving.proxy.media import remote_media
from trainyard_serving.proxy.metrics import Metrics
from trainyard_serving.proxy.openai_errors import error_body, unknown_model
from trainyard_serving.proxy.replica import Replica
from trainyard_serving.proxy.rewriting import Replacer
from trainyard_serving.proxy.routes import MODELS, is_inference, is_read

logger = logging.getLogger(__name__)

LARGEST_BODY = 32 * 2**20
"""Bytes of a request."""
_PASSED_ON = ("Authorization", "Accept", "X-Request-Id", "traceparent", "tracestate")
_RETRY_AFTER = "5"
_OTHER = "other"
"""Label of requests for names that are not served: clients must not be able to make series."""


class Inference:
    """Passes requests to the engine.

    Args:
        replica: The replica.
        metrics: Counts them.
    """

    def __init__(self, replica: Replica, metrics: Metrics) -> None:
        self._replica, self._metrics = replica, metrics
        self._cut = asyncio.Event()
        self.is_closed = False

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        return app

    def close(self) -> None:
        """Answer new requests with 503 from now on."""
        self.is_closed = True

    def cut(self) -> None:
        """End the requests that are still being answered."""
        self._cut.set()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        raw, method = request.rel_url.raw_path, request.method
        if raw == "/health" and method == "GET":
            return web.Response(status=200 if self._replica.is_ready() else 503)
        if raw.rstrip("/") == MODELS or raw.startswith(f"{MODELS}/"):
            return self._models(raw) if method == "GET" else _error(405, "Use GET to list models.")
        if is_read(method, raw):
            return await self._read(raw)
        if not is_inference(method, raw):
            return _error(404, f"{method} {raw} is not served here.")
        if self.is_closed:
            return _unavailable("The replica is ending. Ask again.")
        return await self._infer(request, raw)

    # --- what needs no model ------------------------------------------------------------------------------------------

    def _models(self, raw: str) -> web.Response:
        names, base = self._replica.names, self._replica.names.base
        entries = [_model_entry(base, None), *(_model_entry(name, base) for name in names.all_published())]
        wanted = raw.removeprefix(MODELS).strip("/")
        if not wanted:
            return web.json_response({"object": "list", "data": entries})
        found = next((entry for entry in entries if entry["id"] == wanted), None)
        return web.json_response(found) if found else web.json_response(unknown_model(wanted), status=404)

    async def _read(self, raw: str) -> web.Response:
        engine = self._replica.engine
        try:
            async with engine.session.get(f"{engine.url}{raw}", timeout=aiohttp.ClientTimeout(total=5)) as answer:
                return web.Response(body=await answer.read(), status=answer.status, content_type=answer.content_type)
        except (aiohttp.ClientError, TimeoutError):
            return _unavailable("The engine does not answer now.")

    # --- inference ----------------------------------------------------------------------------------------------------

    async def _infer(self, request: web.Request, raw: str) -> web.StreamResponse:
        began = time.monotonic()
        self._replica.note_request()
        try:
            data = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _error(413, f"The request has more than {LARGEST_BODY // 2**20} MiB.")
        body = _parse(data)
        if body is None:
            return _error(400, "The body of the request is no JSON object.")
        media = remote_media(body)
        if media is not None:
            text = f"{media} must be inline (data:...;base64,...): the server fetches nothing from other addresses."
            return _error(400, text, media)
        name = body.get("model", self._replica.names.base)
        internal = self._replica.names.internal(name) if isinstance(name, str) else None
        if internal is None:
            self._metrics.count(_OTHER, 404, time.monotonic() - began)
            return web.json_response(unknown_model(name), status=404)
        if internal != name:
            body["model"] = internal
            data = json.dumps(body).encode()
        with self._replica.names.flight(internal):
            answer = await self._pass_on(request, raw, data, (internal, name))
        self._metrics.count(name, answer.status, time.monotonic() - began)
        return answer

    async def _pass_on(self, request: web.Request, raw: str, data: bytes, names: tuple[str, str]) -> web.StreamResponse:
        """Ask the engine; the client's disconnection cancels this, and with it the engine's work."""
        engine = self._replica.engine
        headers = {key: request.headers[key] for key in _PASSED_ON if key in request.headers}
        headers["Content-Type"] = "application/json"
        work = asyncio.ensure_future(self._exchange(request, f"{engine.url}{raw}", data, headers, names))
        cut = asyncio.ensure_future(self._cut.wait())
        try:
            await asyncio.wait({work, cut}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return await work
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            return _unavailable("The replica ended before the request was answered.")
        finally:
            work.cancel()
            cut.cancel()

    async def _exchange(
        self, request: web.Request, url: str, data: bytes, headers: dict[str, str], names: tuple[str, str]
    ) -> web.StreamResponse:
        engine, started = self._replica.engine, None
        try:
            async with engine.session.post(url, data=data, headers=headers) as answer:
                if answer.content_type != "text/event-stream":
                    return await self._whole(answer, names)
                started = web.StreamResponse(status=answer.status, headers=_stream_headers(answer))
                await started.prepare(request)
                await self._stream(answer, started, names)
                return started
        except (aiohttp.ClientError, TimeoutError) as error:
            logger.warning("the engine did not answer a request: %s", error)
            if started is None:
                return _unavailable("The engine does not answer now; it is being restarted. Ask again.")
            _abort(request)  # a stream that ends early must not look complete
            return started

    async def _whole(self, answer: aiohttp.ClientResponse, names: tuple[str, str]) -> web.Response:
        content = await answer.read()
        if answer.status == 200:
            self._replica.note_answer()
        elif answer.status >= 500:
            answer.close()  # the engine resets such a connection without a notice
        internal, public = names
        if internal != public:
            content = content.replace(internal.encode(), public.encode())
        return web.Response(body=content, status=answer.status, content_type=answer.content_type)

    async def _stream(self, answer: aiohttp.ClientResponse, client: web.StreamResponse, names: tuple[str, str]) -> None:
        internal, public = names
        replacer = Replacer(internal.encode(), public.encode()) if internal != public else None
        async for chunk in answer.content.iter_any():
            self._replica.note_answer()
            shown = replacer.feed(chunk) if replacer else chunk
            if shown:
                await client.write(shown)
        rest = replacer.finish() if replacer else b""
        if rest:
            await client.write(rest)
        await client.write_eof()


def _parse(data: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _model_entry(name: str, parent: str | None) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "trainyard",
        "root": parent or name,
        "parent": parent,
    }


def _stream_headers(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {
        "Content-Type": answer.headers.get("Content-Type", "text/event-stream"),
        "Cache-Control": "no-cache",
        "X-Accel-Buffering": "no",
    }


def _abort(request: web.Request) -> None:
    """Break the connection to the client."""
    if request.transport is not None:
        request.transport.abort()


def _error(status: int, message: str, param: str | None = None) -> web.Response:
    return web.json_response(error_body(status, message, param), status=status)


def _unavailable(message: str) -> web.Response:
    response = _error(503, message)
    response.headers["Retry-After"] = _RETRY_AFTER
    response.force_close()
    return response
