"""HTTP sessions for kopf, with a minimum interval between its watch requests.

kopf reopens a watch as soon as the server closes it and backs off only after a failure: a server or a proxy that
closes watches at once would receive thousands of requests per second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aiohttp
import kopf

from trainyard_kube.rate_limit import Pacer


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
