"""The life of the leading process: acquire the lease, run the parts, wind down, release."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from trainyard_kube.errors import LeadershipLostError
from trainyard_kube.events import EventWriter
from trainyard_kube.lease import Elector

_DRAIN_SECONDS = 5.0
_KOPF_SECONDS = 1.0
"""Seconds that kopf gets to end: it waits 5 s for its own tasks when the stop arrives during its start."""

Part = Callable[[], Coroutine[Any, Any, None]]


class Leader:
    """Runs the parts of an operator while it leads.

    Args:
        elector: Holds the lease.
        events: Writes Events.
        parts: Parts that write: reconciles, distribution of certificates. They are cancelled first.
        watch: Watches until its event is set.
        stop: Set when the process is to end.
    """

    def __init__(
        self,
        elector: Elector,
        events: EventWriter,
        *,
        parts: Sequence[Part],
        watch: Callable[[asyncio.Event], Coroutine[Any, Any, None]],
        stop: asyncio.Event,
    ) -> None:
        self._elector, self._events, self._parts = elector, events, parts
        self._watch, self._stop = watch, stop

    async def run(self) -> None:
        """Wait for leadership, then run the parts until the process is to end.

        Raises:
            LeadershipLostError: the lease was lost, or the watches ended.
            Exception: a part failed.
        """
        if not await self._until_stopped(self._elector.acquire()):
            await self._lead()

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Wait for the work or the end of the process; return whether the process is to end."""
        tasks = {asyncio.create_task(work), asyncio.create_task(self._stop_requested())}
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await _cancel(pending)
        for task in done:
            task.result()
        return self._stop.is_set()

    async def _lead(self) -> None:
        """Run all parts; the first that ends without a request ends the process."""
        # Created before kopf starts: when kopf ends it cancels the tasks that were created after it.
        kopf_stop = asyncio.Event()
        holder = asyncio.create_task(self._elector.hold())
        watcher = asyncio.create_task(self._watch(kopf_stop))
        stopper = asyncio.create_task(self._stop_requested())
        parts = [asyncio.create_task(part()) for part in self._parts]
        writer = asyncio.create_task(self._events.run())
        try:
            await asyncio.wait([holder, watcher, stopper, *parts, writer], return_when=asyncio.FIRST_COMPLETED)
            for task in (holder, watcher, *parts, writer):
                if task.done():
                    task.result()  # raises what ended it
            if not self._stop.is_set():
                raise LeadershipLostError("the watches ended; the operator starts again")
            await _cancel(parts)
            await self._events.drain(_DRAIN_SECONDS)
        finally:
            await _cancel([*parts, writer, stopper, holder])
            await self._elector.release()  # nothing writes any more: a successor need not wait for the end of kopf
            kopf_stop.set()
            await asyncio.wait([watcher], timeout=_KOPF_SECONDS)
            await _cancel([watcher])

    async def _stop_requested(self) -> None:
        await self._stop.wait()


async def _cancel(tasks: Sequence[asyncio.Task[None]] | set[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait for their end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
