"""Requests to the API server with raw JSON documents; the only module that knows kubernetes.aio."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.config import ConfigException

from trainyard_crds.constants import FIELD_MANAGER
from trainyard_operator.clock import ServerClock, monotonic
from trainyard_operator.errors import ApiUnreachableError, SettingsError, ThrottledError, refused
from trainyard_operator.kube.throttle import Gate, TokenBucket

Object = dict[str, Any]
Query = Sequence[tuple[str, str]]

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"

TRAINING_JOBS = "/apis/trainyard.dev/v1alpha1/{namespace}trainingjobs"
JOBS = "/apis/batch/v1/{namespace}jobs"
PODS = "/api/v1/{namespace}pods"
CONFIG_MAPS = "/api/v1/{namespace}configmaps"
CLAIMS = "/api/v1/{namespace}persistentvolumeclaims"
SERVICES = "/api/v1/{namespace}services"
SECRETS = "/api/v1/{namespace}secrets"
LEASES = "/apis/coordination.k8s.io/v1/{namespace}leases"
WORKLOADS = "/apis/kueue.x-k8s.io/v1beta2/{namespace}workloads"
EVENTS = "/apis/events.k8s.io/v1/{namespace}events"

_TIMEOUT = 10.0
_SILENCE = 150.0
_PAGE = "500"
_RATE, _BURST, _IN_FLIGHT = 200.0, 600.0, 64
"""Far above what a steady state needs (nothing); a burst of new jobs must not wait for itself."""
_PAUSE_WITHOUT_RETRY_AFTER = 1.0


def path(collection: str, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
    """URL path of a collection, an object or its subresource."""
    base = collection.format(namespace=f"namespaces/{quote(namespace, safe='')}/" if namespace else "")
    parts = [base, *(quote(part, safe="") for part in (name, subresource) if part)]
    return "/".join(parts)


def resource_of(url: str) -> str:
    """Plural name, and subresource, of what a URL path asks for: `pods`, `pods/log`; empty for none."""
    parts = url.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]  # /api/v1/... and /apis/GROUP/VERSION/...
    if parts[:1] == ["namespaces"] and len(parts) > 2:
        parts = parts[2:]
    return "/".join(parts[::2][:2])


class Kube:
    """The API server.

    Args:
        api: The generated client, used for configuration and transport only.
        clock: Learns the server's time from every answer.
    """

    def __init__(self, api: Any, clock: ServerClock) -> None:
        self._api, self._clock = api, clock
        self._gate = Gate(TokenBucket(_RATE, _BURST, monotonic, asyncio.sleep), _IN_FLIGHT)
        self._before_write: Callable[[], None] = lambda: None
        self._count: Callable[[str, str, str], None] = lambda verb, resource, code: None

    def count(self, count: Callable[[str, str, str], None]) -> None:
        """Call `count` with verb, resource and code of each request; the code is `none` where no answer came."""
        self._count = count

    def fence(self, check: Callable[[], None]) -> None:
        """Call `check` at the last moment before each write; what it raises keeps the write from being sent."""
        self._before_write = check

    def ungated(self) -> Kube:
        """The same connection for requests that must not wait behind others."""
        other = Kube(self._api, self._clock)
        other.count(self._count)
        return other

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def get(self, url: str, query: Query = ()) -> Object:
        """One object.

        Raises:
            ApiError: see the tree of errors.
        """
        return await self._json("GET", url, query)

    async def list_all(
        self, url: str, query: Query = (), keep: Callable[[Object], Object] = lambda item: item
    ) -> tuple[list[Object], str]:
        """Every object of a collection, page by page, and the version of the list.

        Args:
            url: Its path.
            query: Selectors.
            keep: What is kept of each object, so that the whole of one page only is in memory.

        Raises:
            ApiError: see the tree of errors.
        """
        items: list[Object] = []
        token = ""
        while True:
            pages = [("limit", _PAGE), *([("continue", token)] if token else [])]
            page = await self._json("GET", url, [*query, *pages])
            items += map(keep, page["items"])
            token = page["metadata"].get("continue", "")
            if not token:
                return items, page["metadata"]["resourceVersion"]

    async def watch(self, url: str, query: Query, version: str, seconds: int) -> AsyncGenerator[Object]:
        """Events of a collection after a version, until the server ends the stream; close it where it is left early.

        Args:
            url: The collection's path.
            query: Selectors.
            version: Where to begin.
            seconds: How long the server keeps the stream.

        Raises:
            ApiError: see the tree of errors; no word for long is one, too: the server marks even quiet streams.
        """
        asked = [*query, ("watch", "true"), ("allowWatchBookmarks", "true"), ("resourceVersion", version)]
        asked.append(("timeoutSeconds", str(seconds)))
        response = None
        try:
            _, target, sent, *_ = await self._api.param_serialize(
                "GET", url, query_params=asked, header_params={"Accept": JSON}, auth_settings=["BearerToken"]
            )
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_TIMEOUT, sock_read=_SILENCE)
            response = await self._api.call_api("GET", target, sent, None, _request_timeout=timeout)
            self._count("WATCH", resource_of(url), str(response.status))
            if response.status >= 400:
                raise self._refusal(response, await response.read())
            while line := await response.response.content.readline():
                yield json.loads(line)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ApiUnreachableError(f"the watch of {url} broke off: {str(error) or type(error).__name__}") from error
        finally:
            if response is not None:
                response.response.close()

    async def create(self, url: str, body: Object, *, dry_run: bool = False) -> Object:
        """Create an object (POST to its collection).

        Args:
            url: The collection's path.
            body: The object.
            dry_run: Whether only to hear what the server would answer.

        Raises:
            ApiError: see the tree of errors; ConflictError where it exists.
        """
        dry = [("dryRun", "All")] if dry_run else []
        return await self._json("POST", url, [("fieldManager", FIELD_MANAGER), *dry], body)

    async def replace(self, url: str, body: Object) -> Object:
        """Replace an object (PUT); its resourceVersion must be the current one.

        Raises:
            ApiError: see the tree of errors; ConflictError where it changed.
        """
        return await self._json("PUT", url, [("fieldManager", FIELD_MANAGER)], body)

    async def merge(self, url: str, patch: Object) -> Object:
        """Merge-patch an object; a `metadata.resourceVersion` in the patch must be the current one.

        Raises:
            ApiError: see the tree of errors; ConflictError where it changed.
        """
        query = [("fieldManager", FIELD_MANAGER), ("fieldValidation", "Strict")]
        return await self._json("PATCH", url, query, patch, MERGE_PATCH)

    async def apply(self, url: str, body: Object) -> Object:
        """Server-side apply.

        Raises:
            ApiError: see the tree of errors.
        """
        return await self._json("PATCH", url, [("fieldManager", FIELD_MANAGER), ("force", "true")], body, APPLY)

    async def delete(
        self, url: str, *, uid: str | None = None, grace: int | None = None, propagation: str = "Background"
    ) -> None:
        """Delete an object.

        Args:
            url: Its path.
            uid: UID it must have.
            grace: Seconds its containers get; None leaves it to the object.
            propagation: What becomes of its dependents.

        Raises:
            ApiError: see the tree of errors.
        """
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        await self._send("DELETE", url, (), body, JSON)

    async def text(self, url: str, query: Query) -> str:
        """A text, such as a log.

        Raises:
            ApiError: see the tree of errors.
        """
        return (await self._send("GET", url, query, None, JSON)).decode(errors="replace")

    async def _json(
        self, method: str, url: str, query: Query = (), body: Object | None = None, content_type: str = JSON
    ) -> Object:
        document: Object = json.loads(await self._send(method, url, query, body, content_type))
        return document

    async def _send(self, method: str, url: str, query: Query, body: Object | None, content_type: str) -> bytes:
        headers = {"Accept": JSON if not url.endswith("/log") else "*/*", "Content-Type": content_type}
        async with self._gate:
            if method != "GET":
                self._before_write()
            try:
                # Without the body, of which it would make a copy: it is JSON already.
                _, target, sent, *_ = await self._api.param_serialize(
                    method, url, query_params=list(query), header_params=headers, auth_settings=["BearerToken"]
                )
                response = await self._api.call_api(method, target, sent, body, _request_timeout=_TIMEOUT)
                content: bytes = await response.read() or b""
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self._count(method, resource_of(url), "none")
                reason = str(error) or type(error).__name__
                raise ApiUnreachableError(f"{method} {url} got no answer: {reason}") from error
        self._count(method, resource_of(url), str(response.status))
        self._note(response)
        if response.status >= 400:
            raise self._refusal(response, content)
        return content

    def _note(self, response: Any) -> None:
        date = response.headers.get("Date")
        if date:
            self._clock.observe(date, monotonic())

    def _refusal(self, response: Any, content: bytes) -> Exception:
        error = refused(response.status, *_answer(content))
        if isinstance(error, ThrottledError):
            text = response.headers.get("Retry-After", "")
            self._gate.bucket.pause(float(text) if text.isdigit() else _PAUSE_WITHOUT_RETRY_AFTER)
        return error


def _answer(content: bytes) -> tuple[str, str, tuple[str, ...]]:
    """Reason, message and causes of a Status; the text itself where it is none."""
    try:
        status = json.loads(content)
        causes = (status.get("details") or {}).get("causes") or []
        return str(status.get("reason", "")), str(status["message"]), tuple(str(one.get("reason")) for one in causes)
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", content[:300].decode(errors="replace"), ()


async def connect(kubeconfig: str | None, clock: ServerClock) -> Kube:
    """Connect with a kubeconfig file, or as the pod's service account.

    Raises:
        SettingsError: neither can be used.
    """
    configuration = client.Configuration()
    try:
        if kubeconfig is None:
            config.load_incluster_config(client_configuration=configuration)
        else:
            await config.load_kube_config(kubeconfig, client_configuration=configuration)
    except ConfigException as error:
        remedy = "Run in a pod with a service account, or set KUBECONFIG to a kubeconfig file."
        raise SettingsError(f"There is no way to the API server: {error} {remedy}") from error
    configuration.connection_pool_maxsize = _IN_FLIGHT + 8
    configuration.proxy = configuration.proxy or environment_proxy(configuration.host)
    # Otherwise two threads look for a proxy and a netrc at each request, and wait for the interpreter in a burst.
    configuration.client_session_kwargs = {"trust_env": False}
    return Kube(client.ApiClient(configuration), clock)


def environment_proxy(url: str) -> str | None:
    """The proxy that the environment names for a URL (`HTTPS_PROXY`, `NO_PROXY` and the like)."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
