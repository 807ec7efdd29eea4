"""One leader among several processes, by a Lease.

Only monotonic time is compared: a holder counts as gone when its record has not changed for `DURATION` seconds of our
own clock. A leader that could not renew for `RENEW_DEADLINE` seconds ends before anybody may take over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Protocol

from trainyard_operator.errors import ApiError, ConflictError, LeadershipLostError, NotFoundError

logger = logging.getLogger(__name__)
Object = dict[str, Any]

DURATION, RENEW_DEADLINE, RETRY_PERIOD = 15.0, 10.0, 2.0


class LeaseApi(Protocol):
    """The part of the API that the elector uses."""

    async def read(self) -> Object:
        """The Lease. Raises NotFoundError."""

    async def create(self, body: Object) -> Object:
        """Create the Lease. Raises ConflictError where it exists."""

    async def update(self, body: Object) -> Object:
        """Replace the Lease at its resourceVersion. Raises ConflictError where it changed."""


class Elector:
    """Competes for a Lease.

    Args:
        api: Where the Lease is.
        name: Name of the Lease.
        identity: This process.
        clock: Monotonic seconds.
        now: The time, for the record only.
        sleep: Waits for seconds.
    """

    def __init__(
        self,
        api: LeaseApi,
        *,
        name: str,
        identity: str,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._api, self._name, self._identity = api, name, identity
        self._clock, self._now, self._sleep = clock, now, sleep
        self._lease: Object | None = None
        self._record: Object | None = None
        self._changed = clock()
        self._renewed = 0.0
        self.leading = False

    async def acquire(self) -> None:
        """Wait until this process leads."""
        while not await self._try():
            await self._sleep(RETRY_PERIOD)
        self.leading = True
        logger.info("leading as %s", self._identity)

    async def hold(self) -> None:
        """Renew for ever.

        Raises:
            LeadershipLostError: another process took the Lease, or it could not be renewed in time.
        """
        while True:
            await self._sleep(RETRY_PERIOD)
            if not await self._try() and (self._holder() != self._identity or self._late()):
                self.leading = False
                raise LeadershipLostError(f"the Lease {self._name} could not be renewed; another operator may lead now")

    def check(self) -> None:
        """Make sure that no other process can lead at this moment; a process that was paused does not know yet.

        Raises:
            LeadershipLostError: the Lease is not held, or was renewed too long ago.
        """
        if not self.leading or self._late():
            raise LeadershipLostError(f"the Lease {self._name} was not renewed in time; another operator may lead now")

    async def release(self) -> None:
        """Let another process lead at once; failing that, it waits for the Lease to run out."""
        if not self.leading or self._lease is None:
            return
        self.leading = False
        body = {**self._lease, "spec": {**self._lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}}
        try:
            async with asyncio.timeout(RETRY_PERIOD):
                await self._api.update(body)
        except (ApiError, TimeoutError) as error:
            logger.info("the Lease was not released: %s", error)

    async def _try(self) -> bool:
        """Take or renew the Lease once."""
        began = self._clock()
        try:
            async with asyncio.timeout(self._patience()):
                held = await self._step()
        except (ApiError, TimeoutError) as error:
            logger.warning(
                "the Lease %s could not be taken or renewed: %s", self._name, str(error) or "no answer in time"
            )
            return False
        if held:
            self._renewed = began
        return held

    async def _step(self) -> bool:
        if not self.leading or self._lease is None:
            try:
                self._observe(await self._api.read())
            except NotFoundError:
                self._lease = await self._api.create({"metadata": {"name": self._name}, **self._claim(0)})
                return True
        assert self._lease is not None
        if self._holder() not in ("", self._identity) and self._clock() - self._changed < self._duration():
            return False
        try:
            self._lease = await self._api.update({**self._lease, **self._claim(self._transitions())})
        except ConflictError:
            self._observe(await self._api.read())
            return False
        return True

    def _observe(self, lease: Object) -> None:
        self._lease = lease
        if lease.get("spec") != self._record:
            self._record, self._changed = lease.get("spec"), self._clock()

    def _claim(self, transitions: int) -> Object:
        stamp = self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        known = (self._lease or {}).get("spec") or {}
        acquired = known.get("acquireTime", stamp) if self._holder() == self._identity else stamp
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": int(DURATION),
                "acquireTime": acquired,
                "renewTime": stamp,
                "leaseTransitions": transitions,
            },
        }

    def _holder(self) -> str:
        return str(((self._lease or {}).get("spec") or {}).get("holderIdentity") or "")

    def _duration(self) -> float:
        return float(((self._lease or {}).get("spec") or {}).get("leaseDurationSeconds") or DURATION)

    def _transitions(self) -> int:
        known = int(((self._lease or {}).get("spec") or {}).get("leaseTransitions") or 0)
        return known + (self._holder() != self._identity)

    def _patience(self) -> float:
        """Seconds a request may take: one that hangs must not outlive the leadership."""
        left = self._renewed + RENEW_DEADLINE - self._clock() if self.leading else RENEW_DEADLINE
        return max(0.1, min(RENEW_DEADLINE / 2, left))

    def _late(self) -> bool:
        return self._clock() - self._renewed >= RENEW_DEADLINE
