"""Looks up at the API server what a plan needs beyond the informer cache."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from trainyard_kube.client import KubeClient
from trainyard_kube.clock import monotonic
from trainyard_kube.errors import (
    ApiError,
    BadRequestError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
)
from trainyard_kube.nodes import NodeLabels
from trainyard_kube.paths import CONFIG_MAPS, EVENTS, PODS, Object, path
from trainyard_operator.reconcile.kind import Resource
from trainyard_operator.reconcile.plan import FAILED_CREATE, LOG, NODES, TERMINATING, Need

logger = logging.getLogger(__name__)

_LOG_LINES, _LOG_BYTES = "60", "65536"
_PROBE, _TERMINATING_CAUSE = "trainyard-probe", "NamespaceTerminating"
"""Name of an object that is never created, and the cause the API server gives in a namespace that is being deleted."""


class Lookup:
    """Answers needs.

    Args:
        kube: The API server.
        resources: Resources by plural name.
        others: Look-ups of a kind beyond the API server, by the kind of the need.
    """

    def __init__(
        self,
        kube: KubeClient,
        resources: Mapping[str, Resource],
        others: Mapping[str, Callable[[str], Awaitable[object]]] = MappingProxyType({}),
    ) -> None:
        self._kube, self._resources, self._others = kube, resources, others
        self._nodes = NodeLabels(kube, monotonic)

    async def answer(self, namespace: str, need: Need) -> object:
        """Return what was looked up; None where there is none.

        Raises:
            ApiError: see the tree of errors.
        """
        if need.kind in self._others:
            return await self._others[need.kind](need.name)
        answers: dict[str, Callable[[], Awaitable[object]]] = {
            LOG: lambda: self._log(namespace, need),
            NODES: lambda: self._nodes.select(need.name),
            TERMINATING: lambda: self._is_terminating(need.name),
            FAILED_CREATE: lambda: self._failed_create(namespace, need.name),
        }
        answer = answers.get(need.kind, lambda: self._object(namespace, need))
        return await answer()

    async def _object(self, namespace: str, need: Need) -> Object | None:
        resource = self._resources[need.kind]
        try:
            found = await self._kube.get(path(resource.collection, namespace, need.name))
        except NotFoundError:
            return None
        resource.ingest(found)
        return found

    async def _is_terminating(self, namespace: str) -> bool:
        """Probe with a dry-run create whether a namespace is being deleted: no permission on namespaces is needed."""
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": _PROBE, "namespace": namespace}}
        try:
            await self._kube.create(path(CONFIG_MAPS, namespace), body, dry_run=True)
        except (ForbiddenError, ConflictError, InvalidError, BadRequestError) as error:
            return _TERMINATING_CAUSE in error.causes
        except NotFoundError:
            return True
        return False

    async def _failed_create(self, namespace: str, job: str) -> str | None:
        """Return the message of the newest Event about a pod that a Job could not get; None where there is none."""
        selector = f"regarding.kind=Job,regarding.name={job},reason=FailedCreate"
        try:
            found, _version = await self._kube.list_all(path(EVENTS, namespace), [("fieldSelector", selector)])
        except ApiError as error:
            logger.info("the Events of Job %s cannot be read: %s", job, error)
            return None
        newest = max(found, key=lambda event: str(event.get("deprecatedLastTimestamp") or ""), default=None)
        return None if newest is None else str(newest.get("note") or "")

    async def _log(self, namespace: str, need: Need) -> str | None:
        """Return the end of a container's log; None where it is unavailable, which must not delay the status."""
        query = [("container", need.container), ("tailLines", _LOG_LINES), ("limitBytes", _LOG_BYTES)]
        try:
            return await self._kube.text(path(PODS, namespace, need.name, "log"), query)
        except ApiError as error:
            logger.info("the log of pod %s cannot be read: %s", need.name, error)
            return None
