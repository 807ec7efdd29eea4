"""Lists every resource from time to time, to find what the watches missed and to detect dead watches."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

from trainyard_kube.errors import ApiError
from trainyard_kube.informer import Informer

logger = logging.getLogger(__name__)

PERIOD = 300.0
SUSPICIOUS_PERIOD = 30.0
"""Period while a list showed changes that the watch had not delivered."""
GRACE = 10.0
"""Seconds in which a live watch may deliver what a list shows. How a pod ended is only in the event of its deletion: a
resync that did not wait for that event would count the pod as lost."""
_SETTLE = 2.0
"""Seconds from a request to the list: at the start all resources request one, and new objects come first."""
_STRIKES = 2
_RETRY = 5.0


class Resync:
    """Periodic lists of several informers.

    Args:
        informers: What to list; owners before their children.
        clock: Monotonic seconds.

    Attributes:
        last: Time of the last complete list.
        missed: Number of changes that only a list showed.
    """

    def __init__(self, informers: Sequence[Informer[Any]], clock: Callable[[], float]) -> None:
        self._informers, self._clock = informers, clock
        self._requested: set[Informer[Any]] = set()
        self._wake = asyncio.Event()
        self._strikes: dict[Informer[Any], int] = {}
        self.last = clock()
        self.missed = 0

    @property
    def dead_watches(self) -> list[str]:
        """Kinds whose lists repeatedly showed changes that the watch had not delivered."""
        return sorted({informer.spec.kind for informer, count in self._strikes.items() if count >= _STRIKES})

    def request(self, informer: Informer[Any]) -> None:
        """List a resource soon: its watch may have lost events."""
        self._requested.add(informer)
        self._wake.set()

    async def prime(self) -> None:
        """Fill the caches before anything is decided, in the order of the informers.

        Raises:
            ApiError: a list failed.
        """
        for informer in self._informers:
            await informer.relist()
        self.last = self._clock()

    async def run(self) -> None:
        """List everything periodically until cancelled."""
        while True:
            informers = await self._next()
            try:
                async with asyncio.TaskGroup() as group:
                    for informer in informers:
                        group.create_task(self._compare(informer))
            except* ApiError as errors:
                logger.warning("a resync failed, next try in %.0f s: %s", _RETRY, errors.exceptions[0])
                self._requested |= set(informers)
                await asyncio.sleep(_RETRY)
                self._wake.set()

    async def _next(self) -> Sequence[Informer[Any]]:
        """Wait for the period or for a request, and return the informers to list."""
        period = SUSPICIOUS_PERIOD if any(self._strikes.values()) else PERIOD
        try:
            async with asyncio.timeout(period * random.uniform(0.9, 1.1)):
                await self._wake.wait()
        except TimeoutError:
            return self._informers
        await asyncio.sleep(_SETTLE)
        self._wake.clear()
        requested, self._requested = self._requested, set()
        return [informer for informer in self._informers if informer in requested]

    async def _compare(self, informer: Informer[Any]) -> None:
        missed, _version = await informer.relist(GRACE)
        self.missed += missed
        self._strikes[informer] = self._strikes.get(informer, 0) + 1 if missed else 0
        if missed:
            logger.warning(
                "a list of %s showed %d changes that the watch had not delivered", informer.spec.kind, missed
            )
        self.last = self._clock()
