"""The Kubernetes API as the gateway uses it: raw JSON over kubernetes.aio, foreign errors translated here."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
import yaml
from kubernetes.aio import client, config

from trainyard_crds.common import GROUP, VERSION
from trainyard_gateway.errors import ApiRefusedError, ApiUnreachableError, SettingsError
from trainyard_gateway.jobs import JobKey

_JOBS = f"/apis/{GROUP}/{VERSION}/trainingjobs"
_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
_JSON, _MERGE_PATCH = "application/json", "application/merge-patch+json"
_REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=10)
_WATCH_SECONDS = 290
# The server sends a bookmark about once a minute, so a longer silence means a dead connection.
_WATCH_TIMEOUT = aiohttp.ClientTimeout(total=_WATCH_SECONDS + 30, sock_connect=10, sock_read=100)
_PAGE = 500
_VERBS = {
    "create": ("POST", "tokenreviews"),
    "list": ("GET", "trainingjobs"),
    "watch": ("GET", "trainingjobs"),
    "patch": ("PATCH", "trainingjobs/status"),
}
"""HTTP method and resource of each verb we use."""

Document = dict[str, Any]


class Kube:
    """Requests to one API server.

    Args:
        api: A configured client; `close` closes it.
    """

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        self._answered: Callable[[str, str, str], None] = lambda verb, resource, code: None

    def observe(self, answered: Callable[[str, str, str], None]) -> None:
        """Call `answered` with verb, resource and HTTP status (`none` without an answer) of every request."""
        self._answered = answered

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()

    async def review_token(self, token: str, audience: str) -> Document:
        """The status of a TokenReview.

        Raises:
            ApiError: the API server refused or did not answer.
        """
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        }
        review = await self._request("create", _REVIEWS, body=body)
        status: Document = review.get("status", {})
        return status

    async def list_jobs(self) -> tuple[list[Document], str]:
        """All TrainingJobs of the cluster and the version of the list.

        Raises:
            ApiError: the API server refused or did not answer.
        """
        items: list[Document] = []
        query: list[tuple[str, str]] = [("limit", str(_PAGE))]
        while True:
            page = await self._request("list", _JOBS, query)
            items += page["items"]
            token = page["metadata"].get("continue")
            if not token:
                return items, page["metadata"]["resourceVersion"]
            query = [("limit", str(_PAGE)), ("continue", token)]

    async def watch_jobs(self, version: str) -> AsyncGenerator[Document, None]:
        """Watch events after a version, bookmarks included, until the server ends the watch.

        Raises:
            ApiError: the API server refused or the connection failed.
        """
        query = [
            ("watch", "true"),
            ("resourceVersion", version),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", str(_WATCH_SECONDS)),
        ]
        response = await self._send("watch", _JOBS, query, None, timeout=_WATCH_TIMEOUT)
        try:
            rest = b""
            async for chunk in response.response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield json.loads(line)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiUnreachableError(f"the watch of TrainingJobs broke: {_text(error)}") from error
        finally:
            response.response.close()

    async def patch_status(self, key: JobKey, patch: Mapping[str, Any]) -> Document:
        """Merge-patch a TrainingJob's status and return the new object.

        Raises:
            ApiError: the API server refused (409: the resourceVersion is stale) or did not answer.
        """
        query = [("fieldManager", "trainyard-gateway"), ("fieldValidation", "Strict")]
        return await self._request("patch", f"{_job_path(key)}/status", query, dict(patch), _MERGE_PATCH)

    async def _request(
        self,
        verb: str,
        path: str,
        query: list[tuple[str, str]] | None = None,
        body: Document | None = None,
        content_type: str = _JSON,
    ) -> Document:
        response = await self._send(verb, path, query or [], body, content_type=content_type)
        try:
            document: Document = json.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ApiUnreachableError(f"the answer to {_VERBS[verb][0]} {path} broke off: {_text(error)}") from error
        return document

    async def _send(
        self,
        verb: str,
        path: str,
        query: list[tuple[str, str]],
        body: Document | None,
        *,
        content_type: str = _JSON,
        timeout: aiohttp.ClientTimeout = _REQUEST_TIMEOUT,  # noqa: ASYNC109 - handed to the HTTP client
    ) -> Any:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        (method, resource), code = _VERBS[verb], "none"
        try:
            request = await self._api.param_serialize(
                method, path, query_params=query, header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            response = await self._api.call_api(*request, _request_timeout=timeout)
            code = str(response.status)
            if response.status >= 400:
                raise ApiRefusedError(response.status, _message(await response.read()))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiUnreachableError(f"{method} {path} got no answer: {_text(error)}") from error
        finally:
            self._answered(verb, resource, code)
        return response


async def connect(kubeconfig: str | None) -> Kube:
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
    except (config.ConfigException, yaml.YAMLError, OSError) as error:
        remedy = "Run in a pod with a service account, or set KUBECONFIG to a kubeconfig file."
        raise SettingsError(f"There is no way to the API server: {error}. {remedy}") from error
    return Kube(client.ApiClient(configuration))


def _job_path(key: JobKey) -> str:
    namespace, name = quote(key.namespace, safe=""), quote(key.name, safe="")
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/trainingjobs/{name}"


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
