"""Starts artifact readers on demand and removes those that ended; only the leader runs it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from trainyard_kube.errors import ApiError
from trainyard_kube.paths import Object
from trainyard_operator.artifact_reader.objects import MissingClaimError, Place, ReaderObjects, sentence
from trainyard_operator.artifact_reader.problems import has_ended, is_ending, is_running, problem_of
from trainyard_operator.certificates import Pair

logger = logging.getLogger(__name__)

_STARTING_SECONDS, _RUNNING_SECONDS = 5.0, 30.0
"""Seconds for which a reader that was seen is not looked at again, while it is starting and while it runs."""
_LONGEST_PAUSE = 60.0
"""Longest pause between two tries that fail; the first is that of a reader that is starting."""
_SWEEP_SECONDS = 60.0
"""Seconds between two looks at all readers that are known."""
_RETRY_SECONDS = 2.0
"""Seconds until the next try while the certificate authority or the list of readers is missing."""


class ArtifactReaders:
    """Artifact readers of all claims.

    A reader that was requested is started unless it runs. Without requests there are no calls but a look at each reader
    every minute, until it has ended and its objects are removed.

    Args:
        objects: Their objects in the API server.
        monotonic: Monotonic seconds.
        authority: Returns the certificate authority; None until it is known.
        namespaces: Namespaces of this operator; empty for all.
    """

    def __init__(
        self,
        objects: ReaderObjects,
        monotonic: Callable[[], float],
        *,
        authority: Callable[[], Pair | None],
        namespaces: tuple[str, ...],
    ) -> None:
        self._objects, self._monotonic, self._authority, self._namespaces = objects, monotonic, authority, namespaces
        self._wanted: set[Place] = set()
        self._due: dict[Place, float] = {}
        """Monotonic time from which a request for a known reader is followed."""
        self._swept, self._has_recalled = monotonic(), False
        self._problems: dict[Place, str] = {}
        self._failures: dict[Place, int] = {}
        """Failed tries in a row."""
        self._wake = asyncio.Event()

    def request(self, namespace: str, claim: str) -> None:
        """Ask for the reader of a claim; it is started unless it runs."""
        place = Place(namespace, claim)
        if self._monotonic() >= self._due.get(place, float("-inf")):
            self._wanted.add(place)
            self._wake.set()

    def problem(self, namespace: str, claim: str) -> str | None:
        """Return what keeps the reader of a claim from running, a sentence; None while nothing does."""
        return self._problems.get(Place(namespace, claim))

    async def run(self) -> None:
        """Start and remove readers until cancelled."""
        while True:
            await self.work()
            await self._wait()

    async def work(self) -> None:
        """Follow the requests; every minute, look at the readers that were not seen a moment ago."""
        self._has_recalled = self._has_recalled or await self._recall()
        wanted, self._wanted = self._wanted, set()
        for place in sorted(wanted):
            await self._guarded(place, self._ensure)
        if self._monotonic() - self._swept >= _SWEEP_SECONDS:
            self._swept = self._monotonic()
            for place in sorted(place for place, due in self._due.items() if due <= self._swept):
                await self._guarded(place, self._sweep)

    async def _recall(self) -> bool:
        """Learn which readers an earlier process started; return whether they could be listed."""
        try:
            found = await self._objects.find(self._namespaces)
        except ApiError as error:
            logger.warning("the artifact readers cannot be listed: %s", error)
            return False
        for place in found:
            self._due.setdefault(place, self._monotonic())
        return True

    async def _wait(self) -> None:
        """Wait for a request, for the next sweep while there are readers, or for the certificate authority."""
        lacks = self._wanted or not self._has_recalled
        seconds = _RETRY_SECONDS if lacks else _SWEEP_SECONDS if self._due else None
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def _guarded(self, place: Place, act: Callable[[Place], Awaitable[None]]) -> None:
        try:
            await act(place)
        except MissingClaimError as error:
            self._fail(place, str(error))
        except ApiError as error:
            self._fail(place, sentence(place, error))

    def _fail(self, place: Place, problem: str) -> None:
        self._failures[place] = self._failures.get(place, 0) + 1
        pause = min(_LONGEST_PAUSE, _STARTING_SECONDS * 2 ** (self._failures[place] - 1))
        self._due[place] = self._monotonic() + pause
        self._problems[place] = problem
        logger.warning("artifact reader of %s/%s: %s", place.namespace, place.claim, problem)

    # --- one reader ---------------------------------------------------------------------------------------------------

    async def _ensure(self, place: Place) -> None:
        pod = await self._objects.pod(place)
        if pod is not None and has_ended(pod) and not is_ending(pod):
            await self._objects.remove(place)
            pod = await self._objects.pod(place)
        if pod is None:
            authority = self._authority()
            if authority is None:
                self._wanted.add(place)
                return
            await self._objects.start(place, authority)
            pod = await self._objects.pod(place)
        await self._note(place, pod)

    async def _sweep(self, place: Place) -> None:
        pod = await self._objects.pod(place)
        if pod is None or has_ended(pod):
            await self._objects.remove(place)
            self._due.pop(place, None)
            self._problems.pop(place, None)
            self._failures.pop(place, None)
        elif await self._objects.is_in_the_way(place, pod):
            logger.info("the reader of %s/%s ends: another pod waits for the claim", place.namespace, place.claim)
            await self._objects.remove(place)
        else:
            await self._note(place, pod)

    async def _note(self, place: Place, pod: Object | None) -> None:
        """Note how a reader is doing."""
        self._failures.pop(place, None)
        runs = pod is not None and is_running(pod)
        self._due[place] = self._monotonic() + (_RUNNING_SECONDS if runs else _STARTING_SECONDS)
        problem = None
        if pod is not None and not runs:
            problem = problem_of(pod, place.claim, await self._objects.warning(place, pod))
        if problem is None:
            self._problems.pop(place, None)
        else:
            self._problems[place] = problem
