"""Leader election by a Lease.

Only monotonic time is compared: a holder counts as gone when its record has not changed for `DURATION` seconds of this
process's clock. A leader that cannot renew for `RENEW_DEADLINE` seconds stops writing before another process may lead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Protocol

from trainyard_kube.client import KubeClient
from trainyard_kube.errors import ApiError, ConflictError, LeadershipLostError, NotFoundError
from trainyard_kube.paths import LEASES, Object, path

logger = logging.getLogger(__name__)

DURATION, RENEW_DEADLINE, RETRY_PERIOD = 15.0, 10.0, 2.0


class LeaseApi(Protocol):
    """Requests for one Lease."""

    async def read(self) -> Object:
        """Read the Lease. Raises NotFoundError."""

    async def create(self, body: Object) -> Object:
        """Create the Lease. Raises ConflictError if it exists."""

    async def update(self, body: Object) -> Object:
        """Replace the Lease at its resourceVersion. Raises ConflictError if it changed."""


class LeaseClient:
    """Requests for one Lease with limits of their own, so that a renewal does not wait behind other requests.

    Args:
        kube: The API server.
        namespace: Namespace of the Lease.
        name: Its name.
    """

    def __init__(self, kube: KubeClient, namespace: str, name: str) -> None:
        self._kube, self._namespace, self._name = kube.unfenced(), namespace, name

    async def read(self) -> Object:
        """Read the Lease. Raises NotFoundError."""
        return await self._kube.get(path(LEASES, self._namespace, self._name))

    async def create(self, body: Object) -> Object:
        """Create the Lease. Raises ConflictError if it exists."""
        return await self._kube.create(path(LEASES, self._namespace), body)

    async def update(self, body: Object) -> Object:
        """Replace the Lease at its resourceVersion. Raises ConflictError if it changed."""
        return await self._kube.replace(path(LEASES, self._namespace, self._name), body)


class Elector:
    """Acquires, renews and releases a Lease.

    Args:
        api: Requests for the Lease.
        name: Name of the Lease.
        identity: Name of this process.
        clock: Monotonic seconds.
        now: Wall-clock time, written to the Lease and never compared.
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
        self._changed_at = clock()
        self._renewed_at = 0.0
        self.leading = False

    async def acquire(self) -> None:
        """Wait until this process is the leader."""
        while not await self._acquire_or_renew():
            await self._sleep(RETRY_PERIOD)
        self.leading = True
        logger.info("leading as %s", self._identity)

    async def hold(self) -> None:
        """Renew until cancelled.

        Raises:
            LeadershipLostError: another process took the Lease, or it could not be renewed in time.
        """
        while True:
            await self._sleep(RETRY_PERIOD)
            if not await self._acquire_or_renew() and (self._holder() != self._identity or self._is_expired()):
                self.leading = False
                raise LeadershipLostError(f"the Lease {self._name} could not be renewed; another operator may lead now")

    def check(self) -> None:
        """Fence for writes: a process that was paused may hold an expired Lease without having noticed.

        Raises:
            LeadershipLostError: the Lease is not held, or was renewed too long ago.
        """
        if not self.leading or self._is_expired():
            raise LeadershipLostError(f"the Lease {self._name} was not renewed in time; another operator may lead now")

    async def release(self) -> None:
        """Clear the holder so that another process can lead at once instead of waiting for the Lease to expire."""
        if not self.leading or self._lease is None:
            return
        self.leading = False
        body = {**self._lease, "spec": {**self._lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}}
        try:
            async with asyncio.timeout(RETRY_PERIOD):
                await self._api.update(body)
        except (ApiError, TimeoutError) as error:
            logger.info("the Lease was not released: %s", error)

    async def _acquire_or_renew(self) -> bool:
        """Send the requests of one attempt and return whether this process holds the Lease."""
        began = self._clock()
        try:
            async with asyncio.timeout(self._timeout()):
                held = await self._attempt()
        except (ApiError, TimeoutError) as error:
            logger.warning(
                "the Lease %s could not be acquired or renewed: %s", self._name, str(error) or "no answer in time"
            )
            return False
        if held:
            self._renewed_at = began
        return held

    async def _attempt(self) -> bool:
        if not self.leading or self._lease is None:
            try:
                self._observe(await self._api.read())
            except NotFoundError:
                self._lease = await self._api.create({"metadata": {"name": self._name}, **self._body(0)})
                return True
        assert self._lease is not None
        if self._holder() not in ("", self._identity) and self._clock() - self._changed_at < self._duration():
            return False
        try:
            self._lease = await self._api.update({**self._lease, **self._body(self._transitions())})
        except ConflictError:
            self._observe(await self._api.read())
            return False
        return True

    def _observe(self, lease: Object) -> None:
        self._lease = lease
        if lease.get("spec") != self._record:
            self._record, self._changed_at = lease.get("spec"), self._clock()

    def _body(self, transitions: int) -> Object:
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

    def _timeout(self) -> float:
        """Return the time limit of an attempt: a request that hangs must not outlast the leadership."""
        left = self._renewed_at + RENEW_DEADLINE - self._clock() if self.leading else RENEW_DEADLINE
        return max(0.1, min(RENEW_DEADLINE / 2, left))

    def _is_expired(self) -> bool:
        return self._clock() - self._renewed_at >= RENEW_DEADLINE
