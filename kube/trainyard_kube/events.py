"""Writes Events (events.k8s.io/v1) in the background: best effort, in order, without delaying a reconcile."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from trainyard_kube.client import KubeClient
from trainyard_kube.clock import ServerClock
from trainyard_kube.errors import ApiError
from trainyard_kube.paths import EVENTS, path

logger = logging.getLogger(__name__)
_CAPACITY = 5000
_NOTE_LIMIT = 1024


class EventWriter:
    """Queue of Events.

    Args:
        kube: The API server.
        clock: Time of the Events.
        controller: Name of the controller, as `reportingController`.
        instance: This process, as `reportingInstance`.
    """

    def __init__(self, kube: KubeClient, clock: ServerClock, *, controller: str, instance: str) -> None:
        self._kube, self._clock, self._controller, self._instance = kube, clock, controller, instance
        self._queue: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue(_CAPACITY)
        self._count = 0

    def write(self, regarding: dict[str, Any], *, kind: str, reason: str, note: str) -> None:
        """Queue one Event; it is dropped if the queue is full.

        Args:
            regarding: The object it is about.
            kind: Normal or Warning.
            reason: CamelCase reason.
            note: Sentence for the user.
        """
        namespace, body = regarding["metadata"]["namespace"], self._body(regarding, kind, reason, note)
        try:
            self._queue.put_nowait((path(EVENTS, namespace), body))
        except asyncio.QueueFull:
            logger.warning("an Event was dropped: %s", note, extra=_about(regarding["metadata"]))

    async def run(self) -> None:
        """Write queued Events until cancelled."""
        while True:
            url, body = await self._queue.get()
            try:
                await self._kube.create(url, body)
            except ApiError as error:
                logger.warning("an Event was not written: %s", error, extra=_about(body["regarding"]))
            finally:
                self._queue.task_done()

    async def drain(self, seconds: float) -> None:
        """Wait until the queue is empty, at most that long."""
        try:
            async with asyncio.timeout(seconds):
                await self._queue.join()
        except TimeoutError:
            logger.info("%d Events were not written", self._queue.qsize())

    def _body(self, regarding: dict[str, Any], kind: str, reason: str, note: str) -> dict[str, Any]:
        metadata, now = regarding["metadata"], self._clock.now()
        self._count += 1
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata['name']}.{int(now.timestamp() * 1e6):x}{self._count % 4096:03x}",
                "namespace": metadata["namespace"],
            },
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": kind,
            "reason": reason,
            "action": "Reconcile",
            "note": note[:_NOTE_LIMIT],
            "reportingController": self._controller,
            "reportingInstance": self._instance[:128],
            "regarding": {
                "apiVersion": regarding["apiVersion"],
                "kind": regarding["kind"],
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
        }


def _about(regarding: dict[str, Any]) -> dict[str, str]:
    """Return the log fields of an object; Events are written outside the log context of a reconcile."""
    return {"namespace": regarding["namespace"], "job": regarding["name"]}
