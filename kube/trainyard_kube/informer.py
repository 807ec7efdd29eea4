"""Informers: each keeps the cache of one resource current, from lists and from the watch events of a transport."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from trainyard_kube.cache import Cache, Entry
from trainyard_kube.client import KubeClient
from trainyard_kube.paths import Object
from trainyard_kube.resource import ResourceSpec

logger = logging.getLogger(__name__)
V = TypeVar("V")

Notify = Callable[[Sequence[Any], bool], None]
"""Receives objects and whether the cache lacked these versions; False for events that repeat what is cached, mostly
the answers to this process's own writes."""


class Informer(Generic[V]):
    """Cache of one resource with its list.

    Args:
        kube: The API server.
        spec: The resource.
        cache: Receives its objects.
        clock: Monotonic seconds.
        notify: Called after each event and each list that changed the cache.

    Attributes:
        last_event: Time of the last watch event; None before the first.
    """

    def __init__(
        self,
        kube: KubeClient,
        spec: ResourceSpec[V],
        cache: Cache[V],
        clock: Callable[[], float],
        notify: Notify = lambda objects, fresh: None,
    ) -> None:
        self._kube, self.spec, self.cache = kube, spec, cache
        self._clock, self._notify = clock, notify
        self.last_event: float | None = None

    def handle(self, event: Mapping[str, Any]) -> None:
        """Apply one watch event; it does no I/O and raises nothing."""
        self.last_event = self._clock()
        try:
            obj, deleted = dict(event["object"]), event["type"] == "DELETED"
            if not self.spec.selects(obj):
                return
            fresh = deleted or not self.cache.has(obj)
            if deleted:
                self.cache.delete(obj)
            else:
                self.cache.put(obj)
            self._notify([obj], fresh)
        except (KeyError, ValueError, TypeError):
            logger.exception("an event of %s could not be read", self.spec.kind)

    async def relist(self, grace: float = 0.0) -> tuple[int, str]:
        """Apply a complete list.

        Args:
            grace: Seconds between the list and its comparison with the cache, in which the watch may deliver the same.

        Returns:
            The number of changes, and the resource version of the list.

        Raises:
            ApiError: the list failed.
        """
        found, version = await self._kube.list_all(self.spec.url, self.spec.query, self._entry)
        entries = [entry for entry in found if entry is not None]
        await asyncio.sleep(grace)
        changed = self.cache.replace(entries, int(version))
        if changed:
            self._notify(changed, True)
        return len(changed), version

    def _entry(self, obj: Object) -> Entry[V] | None:
        return self.cache.entry(obj) if self.spec.selects(obj) else None
