"""Client of the API server that sends the tokens of users.

It holds no credentials: neither a service account's token nor a client certificate of the kubeconfig, which the API
server would prefer to the token. So the user's own RBAC applies to every request.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Sequence

import aiohttp

from trainyard_kube.client import load_configuration
from trainyard_kube.errors import ApiUnreachableError, answer_error
from trainyard_kube.paths import Object

Query = Sequence[tuple[str, str]]

_TIMEOUT = aiohttp.ClientTimeout(total=10)


class UserClient:
    """GET requests to one API server.

    Args:
        server: URL of the API server.
        context: Verifies its certificate.
        proxy: URL of an HTTP proxy.
    """

    def __init__(self, server: str, context: ssl.SSLContext, proxy: str | None = None) -> None:
        self._server, self._proxy = server.rstrip("/"), proxy
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context),
            timeout=_TIMEOUT,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def get(self, url: str, token: str, query: Query = ()) -> Object:
        """Read an object or a page of a collection.

        Args:
            url: Its path.
            token: The user's bearer token.
            query: Query parameters.

        Raises:
            ApiError: the request failed; redirects are not followed, because they would carry the token elsewhere.
        """
        headers = {"Accept": "application/json", "Authorization": f"Bearer {token}"}
        try:
            async with self._session.get(
                self._server + url, params=list(query), headers=headers, proxy=self._proxy, allow_redirects=False
            ) as response:
                content = await response.read()
                if response.status != 200:
                    raise answer_error(response.status, content)
                document: Object = json.loads(content)
                return document
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:  # ValueError: no UTF-8, no JSON
            raise ApiUnreachableError(f"GET {url} got no answer: {str(error) or type(error).__name__}") from error


async def connect_users(kubeconfig: str | None) -> UserClient:
    """Connect to the API server of a kubeconfig file, or of the cluster of this pod, without credentials.

    Raises:
        ConfigurationError: neither can be used.
    """
    configuration = await load_configuration(kubeconfig)
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if not configuration.verify_ssl:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return UserClient(configuration.host, context, configuration.proxy)
