"""Nodes by label selector, asked for seldom: what they have changes with the hardware."""

from __future__ import annotations

import logging
from collections.abc import Callable

from trainyard_operator.errors import ApiError
from trainyard_operator.kube.client import Kube, Object

logger = logging.getLogger(__name__)

_NODES = "/api/v1/nodes"
_KEPT_SECONDS = 600.0


class Nodes:
    """Lists of nodes, each kept for ten minutes.

    Args:
        kube: The API server.
        clock: Monotonic seconds.
    """

    def __init__(self, kube: Kube, clock: Callable[[], float]) -> None:
        self._kube, self._clock = kube, clock
        self._lists: dict[str, tuple[float, list[Object]]] = {}

    async def select(self, selector: str) -> list[Object]:
        """Name and labels of the nodes of a label selector; none where they may not be listed."""
        now = self._clock()
        self._lists = {key: kept for key, kept in self._lists.items() if now - kept[0] < _KEPT_SECONDS}
        if selector not in self._lists:
            self._lists[selector] = (now, await self._list(selector))
        return self._lists[selector][1]

    async def _list(self, selector: str) -> list[Object]:
        try:
            found, _version = await self._kube.list_all(_NODES, [("labelSelector", selector)])
        except ApiError as error:
            logger.warning("nodes cannot be listed, so nothing is said of their GPUs' memory: %s", error)
            return []
        return [
            {"metadata": {"name": node["metadata"]["name"], "labels": node["metadata"].get("labels") or {}}}
            for node in found
        ]
