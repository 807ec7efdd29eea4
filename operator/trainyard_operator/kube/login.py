"""kopf's way to the API server, with a pause between its watch requests.

kopf opens a watch again as soon as the server has closed it, and waits only after a failure: a server or a proxy that
closes watches at once would get thousands of requests per second.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import kopf

WATCH_PAUSE = 1.0
"""Seconds between two watch requests of one resource."""


class Pacer:
    """Lets a request through once per `WATCH_PAUSE` for each key.

    Args:
        clock: Monotonic seconds.
        sleep: Waits for seconds.
    """

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]) -> None:
        self._clock, self._sleep = clock, sleep
        self._next: dict[str, float] = {}

    async def wait(self, key: str) -> None:
        """Wait for the key's turn."""
        now = self._clock()
        turn = max(now, self._next.get(key, now))
        self._next[key] = turn + WATCH_PAUSE
        if turn > now:
            await self._sleep(turn - now)


class Login:
    """kopf's login handler: kopf calls it at the start, and again after a 401, when the token has been renewed.

    Args:
        kubeconfig: Kubeconfig file; None inside a cluster.
        pacer: Holds back watch requests.
        listed: Told of the URL path of each list, or part of one, that kopf got.
    """

    def __init__(self, kubeconfig: str | None, pacer: Pacer, listed: Callable[[str], None]) -> None:
        self._read = kopf.login_with_service_account if kubeconfig is None else kopf.login_with_kubeconfig
        self._pacer, self._listed = pacer, listed
        self._known: kopf.ConnectionInfo | None = None

    # A coroutine, because a session belongs to a running event loop.
    async def session(self, **told: Any) -> kopf.AiohttpSession | None:
        """A session with the credentials of this moment; None when they are those that were refused."""
        info = self._read(**told)
        if info is None or info == self._known:
            return None
        self._known = info
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
