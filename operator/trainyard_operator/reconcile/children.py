"""Creates, applies, patches and deletes the objects that a plan names."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping

from trainyard_kube.client import KubeClient
from trainyard_kube.errors import (
    ApiRefusedError,
    BadRequestError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
)
from trainyard_kube.paths import Object, path
from trainyard_operator.errors import ForeignObjectError
from trainyard_operator.reconcile.fields import labels, owned_by
from trainyard_operator.reconcile.kind import Resource
from trainyard_operator.reconcile.plan import Deletion, Patch, Refusal
from trainyard_operator.reconcile.refusals import is_over_quota, refusal_of

logger = logging.getLogger(__name__)


class Children:
    """Writes the children of one kind.

    Args:
        kube: The API server.
        resources: Resources by plural name.
        uid_label: Label with the owner's UID, of children without owner reference.
    """

    def __init__(self, kube: KubeClient, resources: Mapping[str, Resource], uid_label: str) -> None:
        self._kube, self._resources, self._uid_label = kube, resources, uid_label
        self._by_kind = {resource.kind: resource for resource in resources.values()}

    async def create(self, bodies: tuple[Object, ...]) -> Refusal | None:
        """Create children: all but the last at once, since only the last, which makes pods, depends on others.

        Returns:
            Why the API server refused one; None when all exist.

        Raises:
            ApiError: a request failed otherwise.
        """
        first, last = bodies[:-1], bodies[-1:]
        return _first(await asyncio.gather(*map(self._create_or_refusal, first))) or _first(
            [await self._create_or_refusal(body) for body in last]
        )

    async def apply(self, bodies: Iterable[Object]) -> Refusal | None:
        """Apply children in their order, server-side and with force: a kind looks up first whether a child is its own.

        Returns:
            Why the API server refused one; None when all were applied.

        Raises:
            ApiError: a request failed otherwise.
        """
        for body in bodies:
            metadata, resource = body["metadata"], self._by_kind[body["kind"]]
            url = path(resource.collection, metadata["namespace"], metadata["name"])
            try:
                resource.ingest(await self._kube.apply(url, body))
            except (ApiRefusedError, ForeignObjectError) as error:
                return refusal_of(body["kind"], error)
        return None

    async def patch(self, namespace: str, patch: Patch) -> None:
        """Patch an object.

        Raises:
            ConflictError: it changed since it was observed; the newest version was ingested.
            ApiError: see the tree of errors.
        """
        kind, _, subresource = patch.kind.partition("/")
        resource = self._resources[kind]
        try:
            changed = await self._kube.merge(path(resource.collection, namespace, patch.name, subresource), patch.body)
        except ConflictError:
            resource.ingest(await self._kube.get(path(resource.collection, namespace, patch.name)))
            raise
        except (InvalidError, ForbiddenError, BadRequestError, NotFoundError) as error:
            if patch.required:
                raise
            logger.warning("%s %s stays as it is: %s", patch.kind, patch.name, error)
            return
        resource.ingest(changed)

    async def delete(self, namespace: str, deletion: Deletion) -> None:
        """Delete an object unless another one has its name.

        Raises:
            ApiError: see the tree of errors.
        """
        url = path(self._resources[deletion.kind].collection, namespace, deletion.name)
        try:
            await self._kube.delete(url, uid=deletion.uid, grace=deletion.grace)
        except NotFoundError:
            logger.debug("%s/%s is gone", namespace, deletion.name)
        except ConflictError:
            if await self._has_uid(url, deletion.uid):
                raise  # the conflict was not about the UID: retry

    async def _has_uid(self, url: str, uid: str) -> bool:
        try:
            found = await self._kube.get(url)
        except NotFoundError:
            return False
        return bool(found["metadata"]["uid"] == uid)

    async def _create_or_refusal(self, body: Object) -> Refusal | None:
        try:
            await self._create(body)
        except (ApiRefusedError, ForeignObjectError) as error:
            return refusal_of(body["kind"], error)
        return None

    async def _create(self, body: Object) -> None:
        """Create a child, or adopt the one that an earlier reconcile created.

        Raises:
            ForeignObjectError: another owner's object has its name.
        """
        kind, metadata = body["kind"], body["metadata"]
        resource, namespace, name = self._by_kind[kind], metadata["namespace"], metadata["name"]
        try:
            resource.ingest(await self._kube.create(path(resource.collection, namespace), body))
            return
        except (ConflictError, ForbiddenError) as error:
            if not _may_exist(error):
                raise
            refused = error
        try:
            found = await self._kube.get(path(resource.collection, namespace, name))
        except NotFoundError:
            raise refused from None
        if not self._is_ours(found, body):
            raise ForeignObjectError(
                f"A {kind} {name} exists in namespace {namespace} and belongs to something else. Delete or rename it."
            )
        resource.ingest(found)

    def _is_ours(self, found: Object, body: Object) -> bool:
        uid = labels(body)[self._uid_label]
        if "ownerReferences" in body["metadata"]:
            return owned_by(found, uid)
        return labels(found).get(self._uid_label) == uid


def _may_exist(error: ApiRefusedError) -> bool:
    """Return whether the object of a refused creation may exist: quotas are checked first, and count it again."""
    return not error.is_denial and (error.reason == "AlreadyExists" or is_over_quota(error))


def _first(refusals: Iterable[Refusal | None]) -> Refusal | None:
    return next((refusal for refusal in refusals if refusal is not None), None)
