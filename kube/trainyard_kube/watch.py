"""Lists and watches one resource directly, without kopf, also where the resource may be installed later."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

from trainyard_kube.client import KubeClient
from trainyard_kube.errors import ApiError, ForbiddenError, GoneError, NotFoundError
from trainyard_kube.informer import Informer
from trainyard_kube.rate_limit import Pacer

logger = logging.getLogger(__name__)

_WATCH_SECONDS = 290
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0


class DirectWatch:
    """Transport that lists once, watches, and lists again only after the watch lost its place.

    Args:
        kube: The API server.
        informer: Receives lists and events.
        clock: Monotonic seconds.
        on_state: Called after each list with None, and with the error if the resource is absent or may not be read.
        sleep: Waits for seconds.

    Attributes:
        synced: Whether a list was applied.
        last_contact: Time of the last answer or event.
    """

    def __init__(
        self,
        kube: KubeClient,
        informer: Informer[Any],
        clock: Callable[[], float],
        *,
        on_state: Callable[[ApiError | None], None] = lambda error: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._kube, self._informer, self._clock, self._on_state = kube, informer, clock, on_state
        self._sleep, self._pacer = sleep, Pacer(clock, sleep)
        self._version: str | None = None
        self._pause = _FIRST_PAUSE
        self.synced = False
        self.last_contact = clock()

    async def run(self) -> None:
        """List and watch until cancelled; failures are logged and retried with growing pauses."""
        while True:
            pause = await self.attempt()
            if pause:
                await self._sleep(pause)

    async def attempt(self) -> float:
        """Run one cycle, handle its failure, and return the seconds to pause before the next one."""
        try:
            await self.cycle()
        except (NotFoundError, ForbiddenError) as error:
            self._version = None
            self._on_state(error)
            return _LONGEST_PAUSE
        except ApiError as error:
            pause, self._pause = self._pause, min(self._pause * 2, _LONGEST_PAUSE)
            logger.warning("%s cannot be watched, next try in %.1f s: %s", self._informer.spec.kind, pause, error)
            return pause
        return 0.0

    async def cycle(self) -> None:
        """List if necessary, then watch until the watch ends.

        Raises:
            ApiError: a request failed, or the watch broke off.
        """
        spec = self._informer.spec
        if self._version is None:
            _changes, self._version = await self._informer.relist()
            self.synced = True
            self._contact()
            self._on_state(None)
        await self._pacer.wait(spec.url)
        try:
            async with aclosing(self._kube.watch(spec.url, spec.query, self._version, _WATCH_SECONDS)) as events:
                async for event in events:
                    self._version = event["object"]["metadata"]["resourceVersion"]
                    self._contact()
                    if event["type"] != "BOOKMARK":
                        self._informer.handle(event)
        except GoneError:
            self._version = None  # the server no longer has the changes since that version
        else:
            self._contact()

    def _contact(self) -> None:
        self.last_contact = self._clock()
        self._pause = _FIRST_PAUSE
