"""Pod, Service and Secret of an artifact reader in the API server.

The Service is made first and removed last: a process that is killed in between leaves a Service, by which the next one
finds the rest.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from trainyard_crds.serving import reader_name
from trainyard_kube.client import KubeClient
from trainyard_kube.clock import ServerClock
from trainyard_kube.errors import ApiError, ConflictError, NotFoundError
from trainyard_kube.paths import CLAIMS, EVENTS, PODS, SECRETS, SERVICES, Object, path
from trainyard_operator.artifact_reader import access, bodies
from trainyard_operator.artifact_reader.problems import is_stuck, newest_warning, overdue_end
from trainyard_operator.certificates import Pair, new_serving
from trainyard_operator.pod_template.defaults import PodDefaults

logger = logging.getLogger(__name__)

_KEYS, _DISCOVERY = "/openid/v1/jwks", "/.well-known/openid-configuration"


class Place(NamedTuple):
    """A claim."""

    namespace: str
    claim: str


class MissingClaimError(Exception):
    """There is no such claim, or not for long; the text is a sentence."""


class ReaderObjects:
    """Makes, reads and removes the objects of readers.

    Args:
        kube: The API server.
        clock: The time.
        image: Image of the readers.
        pull_policy: Their `imagePullPolicy`.
        defaults: Options of their pods.
        others: Service accounts of other namespaces that may read, as `namespace/name`.
    """

    def __init__(
        self,
        kube: KubeClient,
        clock: ServerClock,
        *,
        image: str,
        pull_policy: str,
        defaults: PodDefaults,
        others: tuple[str, ...],
    ) -> None:
        self._kube, self._clock = kube, clock
        self._image, self._pull_policy, self._defaults, self._others = image, pull_policy, defaults, others

    async def find(self, namespaces: tuple[str, ...]) -> list[Place]:
        """Return the claims with readers, or with remains of readers.

        Args:
            namespaces: Where to look; empty for everywhere.

        Raises:
            ApiError: a request failed.
        """
        services: list[Object] = []
        for namespace in namespaces or (None,):
            found, _ = await self._kube.list_all(path(SERVICES, namespace), [("labelSelector", bodies.SELECTOR)])
            services += found
        named = ((one["metadata"], (one["metadata"].get("annotations") or {})) for one in services)
        return [
            Place(metadata["namespace"], annotations[bodies.CLAIM_ANNOTATION])
            for metadata, annotations in named
            if bodies.CLAIM_ANNOTATION in annotations
        ]

    async def pod(self, place: Place) -> Object | None:
        """Return a reader's pod.

        Raises:
            ApiError: the request failed.
        """
        try:
            return await self._kube.get(path(PODS, place.namespace, reader_name(place.claim)))
        except NotFoundError:
            return None

    async def start(self, place: Place, authority: Pair) -> None:
        """Make the objects of a reader that has no pod.

        Args:
            place: The claim.
            authority: Signs its certificate.

        Raises:
            ApiError: a request failed.
            MissingClaimError: there is no such claim.
        """
        claim = await self._claim(place)
        keys, discovery = await self._kube.get(_KEYS), await self._kube.get(_DISCOVERY)
        certificate = new_serving(authority, bodies.dns_names(place.namespace, place.claim), self._clock.now())
        await self._create(SERVICES, bodies.service(claim))
        await self._delete(SECRETS, place)  # an older one has another certificate
        await self._create(SECRETS, bodies.secret(claim, certificate, keys, str(discovery["issuer"]), self._others))
        prefer = await self._nodes(place, claim)
        await self._create(PODS, bodies.pod(claim, self._image, self._pull_policy, self._defaults, prefer))
        logger.info("started the artifact reader of %s/%s", place.namespace, place.claim)

    async def remove(self, place: Place) -> None:
        """Remove the objects of a reader.

        Raises:
            ApiError: a request failed.
        """
        for collection in (PODS, SECRETS, SERVICES):
            await self._delete(collection, place)

    async def warning(self, place: Place, pod: Object) -> str | None:
        """Return why a pod cannot mount its volumes, as the newest Event says, or that it does not end; None otherwise.

        Raises:
            ApiError: the request failed.
        """
        overdue = overdue_end(pod, self._clock.now())
        if overdue is not None or not is_stuck(pod, self._clock.now()):
            return overdue
        selector = f"regarding.kind=Pod,regarding.name={pod['metadata']['name']}"
        found, _ = await self._kube.list_all(path(EVENTS, place.namespace), [("fieldSelector", selector)])
        return newest_warning(event for event in found if event["regarding"].get("uid") == pod["metadata"]["uid"])

    async def is_in_the_way(self, place: Place, pod: Object) -> bool:
        """Return whether another pod waits for the claim, which it can mount when the reader has ended.

        Raises:
            ApiError: the request failed.
        """
        modes = str((pod["metadata"].get("annotations") or {}).get(bodies.ACCESS_ANNOTATION, "")).split(",")
        if not access.is_exclusive(modes):
            return False
        waiting = await self._users(place, [("fieldSelector", "status.phase=Pending")])
        return access.must_yield(modes, waiting, pod["spec"].get("nodeName"))

    async def _claim(self, place: Place) -> Object:
        try:
            claim = await self._kube.get(path(CLAIMS, place.namespace, place.claim))
        except NotFoundError:
            raise MissingClaimError(f"Claim {place.claim} does not exist: the files on it are gone.") from None
        if "deletionTimestamp" in claim["metadata"]:
            raise MissingClaimError(f"Claim {place.claim} is being deleted, and the files on it with it.")
        return claim

    async def _nodes(self, place: Place, claim: Object) -> tuple[str, ...]:
        """Return the nodes on which the reader can mount a claim that one node has; none if it can anywhere."""
        return access.nodes(await self._users(place, [])) if access.is_exclusive(access.access_modes(claim)) else ()

    async def _users(self, place: Place, query: list[tuple[str, str]]) -> list[access.User]:
        pods, _ = await self._kube.list_all(path(PODS, place.namespace), query)
        return access.users(pods, place.claim, reader_name(place.claim))

    async def _create(self, collection: str, body: Object) -> None:
        try:
            await self._kube.create(path(collection, body["metadata"]["namespace"]), body)
        except ConflictError:
            logger.debug("%s %s exists", body["kind"], body["metadata"]["name"])

    async def _delete(self, collection: str, place: Place) -> None:
        try:
            await self._kube.delete(path(collection, place.namespace, reader_name(place.claim)))
        except NotFoundError:
            logger.debug("%s of %s is gone", collection, place)


def sentence(place: Place, error: ApiError) -> str:
    """Return why a reader cannot be started."""
    return f"The reader of claim {place.claim} cannot be started: {str(error).rstrip('. ')}."
