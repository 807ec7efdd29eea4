"""Client of the API server for raw JSON documents; the only module that imports kubernetes.aio."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar, overload
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import yaml
from kubernetes.aio import client, config
from kubernetes.aio.config import ConfigException

from trainyard_kube.clock import ServerClock, monotonic
from trainyard_kube.errors import (
    ApiRefusedError,
    ApiUnreachableError,
    ConfigurationError,
    ThrottledError,
    answer_error,
    status_error,
)
from trainyard_kube.paths import Object, resource_of
from trainyard_kube.rate_limit import Limits, RateLimiter

Query = Sequence[tuple[str, str]]
T = TypeVar("T")

JSON = "application/json"
_ACCEPT = f"{JSON}, application/jwk-set+json"
"""The public keys of the API server have a type of their own."""
MERGE_PATCH = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"

DEFAULT_LIMITS = Limits(rate=200.0, burst=600.0, in_flight=64)
"""Far above what a steady state needs (nothing), so that a burst of new objects does not wait for the limiter."""
_TIMEOUT = 10.0
_WATCH_READ_TIMEOUT = 100.0
"""The server sends a bookmark about once a minute, so a longer silence means a dead connection."""
_WATCH_OVERRUN = 30.0
"""Seconds that a watch may last beyond the time after which the server ends it."""
_PAGE = "500"
_SPARE_CONNECTIONS = 8
_PAUSE_WITHOUT_RETRY_AFTER = 1.0


class KubeClient:
    """Requests to one API server.

    Args:
        api: The generated client, used for configuration and transport only.
        clock: Receives the server's time from every answer.
        field_manager: Field manager of all writes.
        limits: Limits of all requests but watches.
    """

    def __init__(self, api: Any, clock: ServerClock, field_manager: str, limits: Limits = DEFAULT_LIMITS) -> None:
        self._api, self._clock, self._field_manager, self._limits = api, clock, field_manager, limits
        self._limiter = RateLimiter(limits, monotonic)
        self._before_write: Callable[[], None] = lambda: None
        self._observe: Callable[[str, str, str], None] = lambda verb, resource, code: None

    def observe_requests(self, observe: Callable[[str, str, str], None]) -> None:
        """Call `observe` with method (or WATCH), resource and HTTP status (`none` if unanswered) of each request."""
        self._observe = observe

    def set_write_fence(self, check: Callable[[], None]) -> None:
        """Call `check` immediately before each write; an exception it raises prevents the write."""
        self._before_write = check

    def unfenced(self) -> KubeClient:
        """Return a client with the same connections, limits of its own and no write fence, for the Lease itself."""
        other = KubeClient(self._api, self._clock, self._field_manager, self._limits)
        other.observe_requests(self._observe)
        return other

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def get(self, url: str, query: Query = ()) -> Object:
        """Read one object.

        Raises:
            ApiError: the request failed.
        """
        return await self._json("GET", url, query)

    @overload
    async def list_all(self, url: str, query: Query = ()) -> tuple[list[Object], str]: ...

    @overload
    async def list_all(self, url: str, query: Query, keep: Callable[[Object], T]) -> tuple[list[T], str]: ...

    async def list_all(
        self, url: str, query: Query = (), keep: Callable[[Object], Any] = lambda item: item
    ) -> tuple[list[Any], str]:
        """Read every object of a collection, page by page, and the resource version of the list.

        Args:
            url: Path of the collection.
            query: Selectors.
            keep: Returns the part of each object to keep, so that only one page is in memory as a whole.

        Raises:
            ApiError: a request failed.
        """
        items: list[Any] = []
        token = ""
        while True:
            pages = [("limit", _PAGE), *([("continue", token)] if token else [])]
            page = await self._json("GET", url, [*query, *pages])
            items += map(keep, page["items"])
            token = page["metadata"].get("continue", "")
            if not token:
                return items, page["metadata"]["resourceVersion"]

    async def watch(self, url: str, query: Query, version: str, seconds: int) -> AsyncGenerator[Object]:
        """Yield the events of a collection, bookmarks included, until the server ends the watch.

        Args:
            url: Path of the collection.
            query: Selectors.
            version: Resource version to start from.
            seconds: Time after which the server ends the watch.

        Raises:
            ApiError: the request failed, the connection broke or went silent, or the server sent an ERROR event.
        """
        parameters = [*query, ("watch", "true"), ("allowWatchBookmarks", "true"), ("resourceVersion", version)]
        parameters.append(("timeoutSeconds", str(seconds)))
        async with aclosing(self._lines(url, parameters, seconds)) as lines:
            async for line in lines:
                event: Object = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    message = status.get("message", "the watch failed")
                    raise status_error(status.get("code", 500), status.get("reason", ""), message)
                yield event

    async def _lines(self, url: str, query: Query, seconds: int) -> AsyncGenerator[bytes]:
        """Yield complete lines only: a line that the end of the connection cuts off is dropped."""
        timeout = aiohttp.ClientTimeout(
            total=seconds + _WATCH_OVERRUN, sock_connect=_TIMEOUT, sock_read=_WATCH_READ_TIMEOUT
        )
        response, code = None, "none"
        try:
            try:
                _, target, headers, *_ = await self._serialize("GET", url, query, JSON)
                response = await self._api.call_api("GET", target, headers, None, _request_timeout=timeout)
                code = str(response.status)
            finally:
                self._observe("WATCH", resource_of(url), code)
            if response.status >= 400:
                raise self._refusal(response, await response.read())
            # Not readline: it refuses lines longer than 128 KiB.
            rest = b""
            async for chunk in response.response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiUnreachableError(f"the watch of {url} broke off: {_text(error)}") from error
        finally:
            if response is not None:
                response.response.close()

    async def create(self, url: str, body: Object, *, dry_run: bool = False) -> Object:
        """Create an object (POST to its collection).

        Args:
            url: Path of the collection.
            body: The object.
            dry_run: Request the server's answer without creating anything.

        Raises:
            ApiError: the request failed; ConflictError if the object exists.
        """
        dry = [("dryRun", "All")] if dry_run else []
        return await self._json("POST", url, [("fieldManager", self._field_manager), *dry], body)

    async def replace(self, url: str, body: Object) -> Object:
        """Replace an object (PUT); its resourceVersion must be the current one.

        Raises:
            ApiError: the request failed; ConflictError if the object changed.
        """
        return await self._json("PUT", url, [("fieldManager", self._field_manager)], body)

    async def merge(self, url: str, patch: Object) -> Object:
        """Apply a merge patch; a `metadata.resourceVersion` in the patch must be the current one.

        Raises:
            ApiError: the request failed; ConflictError if the object changed.
        """
        query = [("fieldManager", self._field_manager), ("fieldValidation", "Strict")]
        return await self._json("PATCH", url, query, patch, MERGE_PATCH)

    async def apply(self, url: str, body: Object) -> Object:
        """Apply an object on the server (server-side apply), taking over fields of other managers.

        Raises:
            ApiError: the request failed.
        """
        return await self._json("PATCH", url, [("fieldManager", self._field_manager), ("force", "true")], body, APPLY)

    async def delete(
        self, url: str, *, uid: str | None = None, grace: int | None = None, propagation: str = "Background"
    ) -> None:
        """Delete an object.

        Args:
            url: Its path.
            uid: UID it must have.
            grace: Grace period of its containers in seconds; None for the object's own.
            propagation: Deletion propagation to its dependents.

        Raises:
            ApiError: the request failed.
        """
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        await self._send("DELETE", url, (), body, JSON)

    async def text(self, url: str, query: Query) -> str:
        """Read a text, for example a log.

        Raises:
            ApiError: the request failed.
        """
        return (await self._send("GET", url, query, None, JSON)).decode(errors="replace")

    async def _json(
        self, method: str, url: str, query: Query = (), body: Object | None = None, content_type: str = JSON
    ) -> Object:
        content = await self._send(method, url, query, body, content_type)
        try:
            document: Object = json.loads(content)
        except ValueError as error:
            raise ApiUnreachableError(f"the answer to {method} {url} is not JSON: {error}") from error
        return document

    async def _send(self, method: str, url: str, query: Query, body: Object | None, content_type: str) -> bytes:
        async with self._limiter:
            if method != "GET":
                self._before_write()
            try:
                _, target, headers, *_ = await self._serialize(method, url, query, content_type)
                response = await self._api.call_api(method, target, headers, body, _request_timeout=_TIMEOUT)
                content: bytes = await response.read() or b""
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self._observe(method, resource_of(url), "none")
                raise ApiUnreachableError(f"{method} {url} got no answer: {_text(error)}") from error
        self._observe(method, resource_of(url), str(response.status))
        date = response.headers.get("Date")
        if date:
            self._clock.observe(date, monotonic())
        if response.status >= 400:
            raise self._refusal(response, content)
        return content

    async def _serialize(self, method: str, url: str, query: Query, content_type: str) -> Any:
        """Return the parts of a request; the body stays out, because the generated client would copy it."""
        headers = {"Accept": _ACCEPT if not url.endswith("/log") else "*/*", "Content-Type": content_type}
        return await self._api.param_serialize(
            method, url, query_params=list(query), header_params=headers, auth_settings=["BearerToken"]
        )

    def _refusal(self, response: Any, content: bytes) -> ApiRefusedError:
        error = answer_error(response.status, content)
        if isinstance(error, ThrottledError) and not error.is_denial:
            seconds = response.headers.get("Retry-After", "")
            self._limiter.pause(float(seconds) if seconds.isdigit() else _PAUSE_WITHOUT_RETRY_AFTER)
        return error


async def connect(
    kubeconfig: str | None, clock: ServerClock, field_manager: str, limits: Limits = DEFAULT_LIMITS
) -> KubeClient:
    """Connect with a kubeconfig file, or as the pod's service account if there is none.

    Raises:
        ConfigurationError: neither can be used.
    """
    configuration = await load_configuration(kubeconfig)
    configuration.connection_pool_maxsize = limits.in_flight + _SPARE_CONNECTIONS
    # Otherwise two threads look for a proxy and a netrc at each request and wait for the interpreter in a burst.
    configuration.client_session_kwargs = {"trust_env": False}
    return KubeClient(client.ApiClient(configuration), clock, field_manager, limits)


async def load_configuration(kubeconfig: str | None) -> Any:
    """Return the generated client's configuration of a kubeconfig file or of the pod's service account.

    Raises:
        ConfigurationError: neither can be used.
    """
    configuration = client.Configuration()
    try:
        if kubeconfig is None:
            config.load_incluster_config(client_configuration=configuration)
        else:
            await config.load_kube_config(kubeconfig, client_configuration=configuration)
    except (ConfigException, yaml.YAMLError, OSError) as error:
        remedy = "Run in a pod with a service account, or set KUBECONFIG to a kubeconfig file."
        raise ConfigurationError(f"The API server cannot be reached: {error} {remedy}") from error
    configuration.proxy = configuration.proxy or environment_proxy(configuration.host)
    return configuration


def environment_proxy(url: str) -> str | None:
    """Return the proxy that the environment names for a URL (`HTTPS_PROXY`, `NO_PROXY` and the like)."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
