"""Lists everything now and then, so that nothing the watch missed stays unknown, and notices when it is dead."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Callable

from trainyard_crds.constants import TRAINING_JOBS
from trainyard_kube.client import KubeClient
from trainyard_kube.errors import ApiError
from trainyard_kube.paths import JOBS, PODS, path
from trainyard_operator.kube.store import Key, ResourceKind, Store, trim
from trainyard_operator.kube.watch import SELECTOR

logger = logging.getLogger(__name__)

PERIOD = 300.0
_SUSPICIOUS_PERIOD = 30.0
GRACE = 10.0
"""Seconds a live watch gets to bring what a list shows. How a pod ended is only in the event of its deletion: a resync
that did not wait for it would call the pod lost."""
_SETTLE = 2.0
"""Seconds from a request to the list: at a start all kinds ask for one, and new jobs come first."""
_STRIKES = 2
_RETRY = 5.0

_COLLECTIONS = {ResourceKind.TRAINING_JOBS: TRAINING_JOBS, ResourceKind.JOBS: JOBS, ResourceKind.PODS: PODS}


class Resync:
    """Keeps the Store complete.

    Args:
        kube: The API server.
        store: What is compared with the lists.
        add: Takes the key of each TrainingJob with news.
        clock: Monotonic seconds.
    """

    def __init__(
        self, kube: KubeClient, store: Store, *, add: Callable[[Key], None], clock: Callable[[], float]
    ) -> None:
        self._kube, self._store, self._add, self._clock = kube, store, add, clock
        self._asked: set[ResourceKind] = set()
        self._wake = asyncio.Event()
        self._strikes: dict[ResourceKind, int] = {}
        self.last = clock()
        self.missed = 0

    @property
    def dead_watches(self) -> list[ResourceKind]:
        """Kinds of which list after list brought news that the watch had not."""
        return [kind for kind, count in self._strikes.items() if count >= _STRIKES]

    def ask(self, kind: ResourceKind) -> None:
        """List a kind soon: its watch lost its place."""
        self._asked.add(kind)
        self._wake.set()

    async def prime(self) -> None:
        """Fill the Store before anything is decided; TrainingJobs first, so that children find their owners.

        Raises:
            ApiError: a list failed.
        """
        for kind in ResourceKind:
            await self._list(kind)
        for key in self._store.all_keys():
            self._add(key)
        self.last = self._clock()

    async def run(self) -> None:
        """List every kind from time to time, for ever."""
        while True:
            kinds = await self._next()
            try:
                async with asyncio.TaskGroup() as group:
                    for kind in kinds:
                        group.create_task(self._compare(kind))
            except* ApiError as errors:
                logger.warning("a resync failed, next try in %.0f s: %s", _RETRY, errors.exceptions[0])
                self._asked |= set(kinds)
                await asyncio.sleep(_RETRY)
                self._wake.set()

    async def _next(self) -> tuple[ResourceKind, ...]:
        """Wait for the period or for a request; the kinds to list."""
        period = _SUSPICIOUS_PERIOD if any(self._strikes.values()) else PERIOD
        try:
            async with asyncio.timeout(period * random.uniform(0.9, 1.1)):
                await self._wake.wait()
        except TimeoutError:
            return tuple(ResourceKind)
        await asyncio.sleep(_SETTLE)
        self._wake.clear()
        asked, self._asked = tuple(self._asked), set()
        return asked

    async def _compare(self, kind: ResourceKind) -> None:
        missed = await self._list(kind, grace=GRACE)
        self.missed += missed
        self._strikes[kind] = self._strikes.get(kind, 0) + 1 if missed else 0
        if missed:
            logger.warning("a list of %s showed %d changes that the watch had not", kind, missed)
        self.last = self._clock()

    async def _list(self, kind: ResourceKind, grace: float = 0.0) -> int:
        query = [] if kind is ResourceKind.TRAINING_JOBS else [("labelSelector", SELECTOR)]
        items, list_version = await self._kube.list_all(path(_COLLECTIONS[kind]), query, functools.partial(trim, kind))
        await asyncio.sleep(grace)
        difference = self._store.replace(kind, items, list_version)
        for key in difference.keys:
            self._add(key)
        return difference.missed
