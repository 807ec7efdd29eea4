"""Labels of nodes by label selector, cached because they change with the hardware only."""

from __future__ import annotations

import logging
from collections.abc import Callable

from trainyard_kube.client import KubeClient
from trainyard_kube.errors import ApiError
from trainyard_kube.paths import NODES, Object

logger = logging.getLogger(__name__)

_LIFETIME = 600.0


class NodeLabels:
    """Lists of nodes, each cached for ten minutes.

    Args:
        kube: The API server.
        clock: Monotonic seconds.
    """

    def __init__(self, kube: KubeClient, clock: Callable[[], float]) -> None:
        self._kube, self._clock = kube, clock
        self._lists: dict[str, tuple[float, list[Object]]] = {}

    async def select(self, selector: str) -> list[Object]:
        """Return name and labels of the nodes of a label selector; none if they may not be listed."""
        now = self._clock()
        self._lists = {key: cached for key, cached in self._lists.items() if now - cached[0] < _LIFETIME}
        if selector not in self._lists:
            self._lists[selector] = (now, await self._list(selector))
        return self._lists[selector][1]

    async def _list(self, selector: str) -> list[Object]:
        try:
            found, _version = await self._kube.list_all(NODES, [("labelSelector", selector)])
        except ApiError as error:
            logger.warning("nodes cannot be listed, so the memory of their GPUs is unknown: %s", error)
            return []
        return [
            {"metadata": {"name": node["metadata"]["name"], "labels": node["metadata"].get("labels") or {}}}
            for node in found
        ]
