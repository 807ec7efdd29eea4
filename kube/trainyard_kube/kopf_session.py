"""HTTP sessions for kopf, with a minimum interval between its watch requests.

kopf reopens a watch as soon as the server closes it and backs off only after a failure: a server or a proxy that
closes watches at once would receive thousands of requests per second.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import kopf

WATCH_INTERVAL = 1.0
"""Minimum seconds between two watch requests of one resource."""


class Pacer:
    """Spaces the requests of each key by `WATCH_INTERVAL`.

    Args:
        clock: Monotonic seconds.
        sleep: Waits for seconds.
    """

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]) -> None:
        self._clock, self._sleep = clock, sleep
        self._next: dict[str, float] = {}

    async def wait(self, key: str) -> None:
        """Wait until the next request of the key is permitted."""
        now = self._clock()
        turn = max(now, self._next.get(key, now))
        self._next[key] = turn + WATCH_INTERVAL
        if turn > now:
            await self._sleep(turn - now)


class Login:
    """Login handler of kopf, which calls it at the start and again after a 401, when the token has been renewed.

    Args:
        kubeconfig: Kubeconfig file; None inside a cluster.
        pacer: Delays watch requests.
        listed: Called with the URL path of each list request, or page of one, that kopf made.
    """

    def __init__(self, kubeconfig: str | None, pacer: Pacer, listed: Callable[[str], None]) -> None:
        self._read = kopf.login_with_service_account if kubeconfig is None else kopf.login_with_kubeconfig
        self._pacer, self._listed = pacer, listed
        self._previous: kopf.ConnectionInfo | None = None

    # A coroutine, because a session belongs to a running event loop.
    async def session(self, **handler_arguments: Any) -> kopf.AiohttpSession | None:
        """Return a session with the current credentials; None if those were refused already."""
        info = self._read(**handler_arguments)
        if info is None or info == self._previous:
            return None
        self._previous = info
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
            headers=info.as_http_headers(),
            proxy=info.proxy_url,
            trust_env=info.trust_env,
            middlewares=(self._pace,),
        )
        return kopf.AiohttpSession(
            server=info.server,
            aiohttp_session=session,
            default_namespace=info.default_namespace,
            expiration=info.expiration,
        )

    async def _pace(self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        if request.url.query.get("watch") == "true":
            await self._pacer.wait(request.url.path)
            return await handler(request)
        response = await handler(request)
        self._listed(request.url.path)
        return response
