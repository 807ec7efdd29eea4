"""The HTTP application of the artifact reader."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable

from aiohttp import web

from trainyard_crds.serving import FILES_PATH, LISTING_PATH
from trainyard_serving.artifacts import byte_range
from trainyard_serving.artifacts.idle import IdleTimer
from trainyard_serving.artifacts.tokens import InvalidTokenError, RefusedTokenError, Tokens
from trainyard_serving.artifacts.volume import Found, UnreadableError, Volume

logger = logging.getLogger(__name__)

_CHUNK = 1 << 20
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def artifacts_app(volume: Volume, tokens: Tokens, idle: IdleTimer) -> web.Application:
    """Return the application.

    Args:
        volume: The claim.
        tokens: Verifies who asks.
        idle: Notified of every request that was permitted.
    """

    @web.middleware
    async def permit(request: web.Request, handler: Handler) -> web.StreamResponse:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind != "Bearer" or not token:
            return _unauthorized("Send a service account token as Bearer in Authorization.")
        try:
            tokens.check(token.strip())
        except RefusedTokenError as error:
            logger.warning("refused a request from %s: %s", request.remote, error)
            return _unauthorized(str(error)) if isinstance(error, InvalidTokenError) else _refuse(403, str(error))
        with idle.request():
            try:
                return await handler(request)
            except UnreadableError as error:
                return _refuse(403, str(error))

    async def listing(request: web.Request) -> web.Response:
        found = await asyncio.to_thread(volume.listing, request.match_info["path"])
        if found is None:
            return _refuse(404, "There is no checkpoint or export of that name.")
        return web.Response(text=found.model_dump_json(by_alias=True), content_type="application/json")

    async def file(request: web.Request) -> web.StreamResponse:
        found = await asyncio.to_thread(volume.open, request.match_info["path"])
        if found is None:
            return _refuse(404, "There is no such file in a checkpoint or an export.")
        try:
            return await _send(request, found)
        finally:
            os.close(found.descriptor)

    app = web.Application(middlewares=[permit])
    app.router.add_get(LISTING_PATH + "{path:.+}", listing, allow_head=False)
    app.router.add_get(FILES_PATH + "{path:.+}", file, allow_head=False)
    return app


async def _send(request: web.Request, found: Found) -> web.StreamResponse:
    try:
        part = byte_range.parse(request.headers.get("Range"), found.bytes)
    except byte_range.UnsatisfiableError:
        refused = _refuse(416, f"The range lies outside the file, which has {found.bytes} bytes.")
        refused.headers["Content-Range"] = f"bytes */{found.bytes}"
        return refused
    start, end = part or (0, found.bytes)
    response = web.StreamResponse(status=206 if part else 200)
    response.headers["Accept-Ranges"] = "bytes"
    response.content_type = "application/octet-stream"
    response.content_length = end - start
    if part:
        response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{found.bytes}"
    if found.sha256 is not None:
        response.etag = found.sha256
    await response.prepare(request)
    while start < end:
        chunk = await asyncio.to_thread(os.pread, found.descriptor, min(_CHUNK, end - start), start)
        if not chunk:
            raise ConnectionResetError  # the file shrank: an incomplete answer must not look complete
        await response.write(chunk)
        start += len(chunk)
    await response.write_eof()
    return response


def _unauthorized(message: str) -> web.Response:
    answer = _refuse(401, message)
    answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


def _refuse(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)
