"""Status writes: the smallest merge patch, under the version that was observed, then the Event."""

from __future__ import annotations

import logging
from collections.abc import Collection

from trainyard_kube.client import KubeClient
from trainyard_kube.errors import ConflictError, InvalidError, NotFoundError
from trainyard_kube.events import EventWriter
from trainyard_kube.paths import Object, path
from trainyard_operator.reconcile.kind import Resource
from trainyard_operator.reconcile.plan import Observation, Plan

logger = logging.getLogger(__name__)


class StatusWriter:
    """Writes statuses of one kind.

    Args:
        kube: The API server.
        events: Records Events.
        resource: The kind's resource.
        untrusted: Status fields that are dropped where the API server refuses them.
    """

    def __init__(self, kube: KubeClient, events: EventWriter, resource: Resource, untrusted: Collection[str]) -> None:
        self._kube, self._events, self._resource, self._untrusted = kube, events, resource, untrusted

    async def write(self, observed: Observation, plan: Plan) -> None:
        """Write a plan's status, if it has one, and record its Event.

        Raises:
            ConflictError: the object changed since it was observed; the newest version was ingested.
            ApiError: see the tree of errors.
        """
        if plan.status is None:
            return
        url = path(self._resource.collection, observed.namespace, observed.name)
        version = {"resourceVersion": observed.obj["metadata"]["resourceVersion"]}
        try:
            written = await self._patch(url, version, plan.status)
        except ConflictError:
            self._resource.ingest(await self._kube.get(url))
            raise
        except NotFoundError:
            # The informer has not seen the deletion yet: without this the next reconcile would try again at once.
            self._resource.remove(observed.obj)
            return
        self._resource.ingest(written)
        if plan.note is not None:
            kind, reason, message = plan.note
            self._events.write(observed.obj, kind=kind, reason=reason, note=message)

    async def _patch(self, url: str, version: Object, status: Object) -> Object:
        try:
            return await self._kube.merge(f"{url}/status", {"metadata": version, "status": status})
        except InvalidError as error:
            trusted = {key: value for key, value in status.items() if key not in self._untrusted}
            if trusted == status:
                raise
            logger.warning("the API server refused status fields, which are left out: %s", error)
            return await self._kube.merge(f"{url}/status", {"metadata": version, "status": trusted})
