"""The state of this replica, and what its probes answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from trainyard_crds.serving import ReplicaPhase, ReplicaState
from trainyard_serving.proxy.adapters.manager import AdapterManager
from trainyard_serving.proxy.engine import Engine
from trainyard_serving.proxy.names import Names

PROBE_SECONDS = 12.0
"""Deadline of the completion of the liveness probe; the kubelet waits 15 seconds."""
_FRESH_SECONDS = 10.0
"""Seconds for which an answer of the engine proves that it is alive."""


@dataclass
class Replica:
    """What is known of this replica.

    Args:
        engine: The engine.
        names: Names in requests.
        adapters: The adapters.
        clock: Monotonic seconds.
        now: The time.

    Attributes:
        draining: Whether it is ending.
    """

    engine: Engine
    names: Names
    adapters: AdapterManager
    clock: Callable[[], float]
    now: Callable[[], datetime]
    draining: bool = False
    _answered_at: float = -_FRESH_SECONDS
    _last_request: datetime | None = None
    _responds: bool = True
    _probe: asyncio.Lock = field(default_factory=asyncio.Lock)

    def note_request(self) -> None:
        """Record that a request arrived."""
        self._last_request = self.now()

    def note_answer(self) -> None:
        """Record that the engine produced something."""
        self._answered_at = self.clock()
        self._responds = True

    def is_ready(self) -> bool:
        """Return whether the model and every adapter that can be served answer."""
        return not self.draining and self._responds and self.adapters.is_settled()

    async def has_started(self) -> bool:
        """Return whether the engine lists the model."""
        return self.engine.base in (await self.engine.models() or set())

    async def is_alive(self) -> bool:
        """Return whether the engine completes a token.

        A recent answer counts, and so does the loading of an adapter, which has a deadline of its own. Probes at the
        same time share one completion.
        """
        async with self._probe:
            if self.adapters.is_loading or self.clock() - self._answered_at < _FRESH_SECONDS:
                return True
            self._responds = await self.engine.complete(PROBE_SECONDS)
            if self._responds:
                self._answered_at = self.clock()
            return self._responds

    def state(self) -> ReplicaState:
        """Return what the operator reads."""
        at = self._last_request
        return ReplicaState(
            phase=self._phase(),
            message="" if self._responds else "The engine does not complete a token in time; it is being restarted.",
            adapter_set=self.adapters.desired.version,
            adapters=self.adapters.report(),
            ready=self.is_ready(),
            in_flight=self.names.in_flight,
            last_request_at=None if at is None else at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        )

    def _phase(self) -> ReplicaPhase:
        if self.draining:
            return ReplicaPhase.DRAINING
        if not self._responds:
            return ReplicaPhase.UNRESPONSIVE
        return ReplicaPhase.SERVING if self.adapters.has_engine else ReplicaPhase.STARTING
