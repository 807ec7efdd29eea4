"""Starts artifact readers on demand and removes those that ended; only the leader runs it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from trainyard_crds.serving import reader_name
from trainyard_kube.client import KubeClient
from trainyard_kube.clock import ServerClock
from trainyard_kube.errors import ApiError, ConflictError, NotFoundError
from trainyard_kube.paths import CLAIMS, PODS, SECRETS, SERVICES, Object, path
from trainyard_operator.artifact_reader import bodies
from trainyard_operator.artifact_reader.problems import has_ended, problem_of
from trainyard_operator.certificates import Pair, new_serving
from trainyard_operator.pod_template.defaults import PodDefaults

logger = logging.getLogger(__name__)

_CHECK_SECONDS = 5.0
"""Seconds for which a reader that was seen is not asked for again."""
_SWEEP_SECONDS = 60.0
"""Seconds between two looks at the readers that were started."""
_KEYS, _DISCOVERY = "/openid/v1/jwks", "/.well-known/openid-configuration"
"""Every service account may read these."""


class _Place(NamedTuple):
    namespace: str
    claim: str


class ArtifactReaders:
    """Artifact readers of all claims.

    Args:
        kube: The API server.
        clock: The time.
        monotonic: Monotonic seconds.
        authority: Returns the certificate authority; None until it is known.
        image: Image of the readers.
        pull_policy: Their `imagePullPolicy`.
        defaults: Options of their pods.
        others: Service accounts of other namespaces that may read, as `namespace/name`.
    """

    def __init__(
        self,
        kube: KubeClient,
        clock: ServerClock,
        monotonic: Callable[[], float],
        *,
        authority: Callable[[], Pair | None],
        image: str,
        pull_policy: str,
        defaults: PodDefaults,
        others: tuple[str, ...],
    ) -> None:
        self._kube, self._clock, self._monotonic, self._authority = kube, clock, monotonic, authority
        self._image, self._pull_policy, self._defaults, self._others = image, pull_policy, defaults, others
        self._wanted: dict[_Place, None] = {}
        self._seen: dict[_Place, float] = {}
        self._problems: dict[_Place, str] = {}
        self._wake = asyncio.Event()

    def request(self, namespace: str, claim: str) -> None:
        """Ask for the reader of a claim; it is started unless it runs."""
        place = _Place(namespace, claim)
        if self._monotonic() - self._seen.get(place, -_CHECK_SECONDS) >= _CHECK_SECONDS:
            self._wanted[place] = None
            self._wake.set()

    def problem(self, namespace: str, claim: str) -> str | None:
        """Return what keeps the reader of a claim from running, a sentence; None while nothing does."""
        return self._problems.get(_Place(namespace, claim))

    async def run(self) -> None:
        """Start and remove readers until cancelled."""
        await self._find()
        swept = self._monotonic()
        while True:
            wanted, self._wanted = self._wanted, {}
            for place in wanted:
                await self._guarded(place, self._ensure)
            if self._monotonic() - swept >= _SWEEP_SECONDS:
                for place in list(self._seen):
                    await self._guarded(place, self._sweep)
                swept = self._monotonic()
            await self._wait()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(_SWEEP_SECONDS if self._seen else None):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def _guarded(self, place: _Place, act: Callable[[_Place], Awaitable[None]]) -> None:
        try:
            await act(place)
        except ApiError as error:
            self._seen[place] = self._monotonic()  # not again at once
            self._problems[place] = f"The reader of claim {place.claim} cannot be started: {error}"
            logger.warning("artifact reader of %s/%s: %s", place.namespace, place.claim, error)

    async def _find(self) -> None:
        """Remember the readers that an earlier process started."""
        try:
            pods, _ = await self._kube.list_all(path(PODS), [("labelSelector", bodies.SELECTOR)])
        except ApiError as error:
            logger.warning("the artifact readers cannot be listed: %s", error)
            return
        for pod in pods:
            claim = (pod["metadata"].get("annotations") or {}).get(bodies.CLAIM_ANNOTATION)
            if claim:
                self._seen[_Place(pod["metadata"]["namespace"], claim)] = self._monotonic() - _CHECK_SECONDS

    # --- one reader ---------------------------------------------------------------------------------------------------

    async def _ensure(self, place: _Place) -> None:
        pod = await self._pod(place)
        if pod is not None and has_ended(pod):
            await self._remove(place)
            pod = await self._pod(place)
        if pod is None:
            await self._start(place)
            pod = await self._pod(place)
        self._note(place, pod)
        self._seen[place] = self._monotonic()

    async def _sweep(self, place: _Place) -> None:
        pod = await self._pod(place)
        if pod is None or has_ended(pod):
            await self._remove(place)
            self._seen.pop(place, None)
            self._problems.pop(place, None)
        else:
            self._note(place, pod)

    def _note(self, place: _Place, pod: Object | None) -> None:
        problem = None if pod is None else problem_of(pod, place.claim)
        if problem is None:
            self._problems.pop(place, None)
        else:
            self._problems[place] = problem

    async def _pod(self, place: _Place) -> Object | None:
        try:
            return await self._kube.get(path(PODS, place.namespace, reader_name(place.claim)))
        except NotFoundError:
            return None

    async def _start(self, place: _Place) -> None:
        authority = self._authority()
        if authority is None:
            self._wanted[place] = None
            return
        claim = await self._kube.get(path(CLAIMS, place.namespace, place.claim))
        keys, discovery = await self._kube.get(_KEYS), await self._kube.get(_DISCOVERY)
        certificate = new_serving(authority, bodies.dns_names(place.namespace, place.claim), self._clock.now())
        await self._replace(SECRETS, bodies.secret(claim, certificate, keys, str(discovery["issuer"]), self._others))
        await self._create(SERVICES, bodies.service(claim))
        await self._create(PODS, bodies.pod(claim, self._image, self._pull_policy, self._defaults))
        logger.info("started the artifact reader of %s/%s", place.namespace, place.claim)

    async def _replace(self, collection: str, body: Object) -> None:
        """Create a Secret; an older one has another certificate."""
        metadata = body["metadata"]
        await self._delete(collection, metadata["namespace"], metadata["name"])
        await self._create(collection, body)

    async def _create(self, collection: str, body: Object) -> None:
        try:
            await self._kube.create(path(collection, body["metadata"]["namespace"]), body)
        except ConflictError:
            logger.debug("%s %s exists", body["kind"], body["metadata"]["name"])

    async def _remove(self, place: _Place) -> None:
        for collection in (PODS, SERVICES, SECRETS):
            await self._delete(collection, place.namespace, reader_name(place.claim))

    async def _delete(self, collection: str, namespace: str, name: str) -> None:
        try:
            await self._kube.delete(path(collection, namespace, name))
        except NotFoundError:
            logger.debug("%s/%s is gone", namespace, name)
