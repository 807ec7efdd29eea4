"""Feeds the queue: every node, every pod that holds an extended resource, whoever made it, and every ResourceQuota."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from functools import partial
from typing import Any

from trainyard_crds.constants import JOB_UID_LABEL, ROLE_LABEL
from trainyard_kube.client import KubeClient
from trainyard_kube.errors import ApiError
from trainyard_kube.paths import Object
from trainyard_operator.kube.mirror import Mirror
from trainyard_operator.queue.inventory import Holder, Inventory, holder_of
from trainyard_operator.queue.pool import Node, node_of
from trainyard_operator.queue.quota import Quotas, quota_of

logger = logging.getLogger(__name__)

_NODES, _PODS, _QUOTAS = "/api/v1/nodes", "/api/v1/pods", "/api/v1/resourcequotas"
_PERIOD, _RETRY = 300.0, 5.0
_TRAIN = "train"


class GpuFeed:
    """Keeps an inventory and the quotas true by watch events and by a list now and then.

    Args:
        kube: The API server.
        inventory: What is kept of nodes and pods.
        quotas: What is kept of quotas.
        wake: Called when something changed that the queue looks at.
        noticed: Called with the name of a node that does not answer any more, or answers again, or is gone.
    """

    def __init__(
        self,
        kube: KubeClient,
        inventory: Inventory,
        quotas: Quotas,
        wake: Callable[[], None],
        noticed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._kube, self._wake = kube, wake
        self._nodes = Mirror(_NODES, node_of, partial(_put_node, inventory, noticed))
        self._pods = Mirror(_PODS, _holder, inventory.put_pod)
        self._quotas = Mirror(_QUOTAS, quota_of, quotas.put)
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """List soon: a watch lost its place."""
        self._asked.set()

    def node(self, event: Any) -> None:
        """Take in a watch event of a node."""
        self._take(self._nodes, event)

    def pod(self, event: Any) -> None:
        """Take in a watch event of a pod."""
        self._take(self._pods, event)

    def quota(self, event: Any) -> None:
        """Take in a watch event of a ResourceQuota."""
        self._take(self._quotas, event)

    async def prime(self) -> None:
        """Fill everything before anything is decided.

        Raises:
            ApiError: a list failed.
        """
        changed = [await mirror.relist(self._kube) for mirror in (self._nodes, self._pods, self._quotas)]
        if any(changed):
            self._wake()

    async def run(self) -> None:
        """List everything from time to time, for ever."""
        while True:
            try:
                async with asyncio.timeout(_PERIOD * random.uniform(0.9, 1.1)):
                    await self._asked.wait()
            except TimeoutError:
                pass
            self._asked.clear()
            try:
                await self.prime()
            except ApiError as error:
                logger.warning("nodes, pods and quotas could not be listed, next try in %.0f s: %s", _RETRY, error)
                await asyncio.sleep(_RETRY)
                self._asked.set()

    def _take(self, mirror: Mirror[Any], event: Any) -> None:
        if mirror.take(event):
            self._wake()


def _put_node(inventory: Inventory, noticed: Callable[[str], None], uid: str, node: Node | None) -> bool:
    before = set(inventory.unreachable)
    if node is not None:
        changed = inventory.put_node(node)
    else:
        gone = [known.name for known in inventory.nodes.values() if known.uid == uid]
        for name in gone:
            inventory.remove_node(name)
        changed = bool(gone)
    for name in before ^ set(inventory.unreachable):
        noticed(name)
    return changed


def _holder(pod: Object) -> Holder | None:
    labels = pod["metadata"].get("labels") or {}
    ours = labels.get(ROLE_LABEL) == _TRAIN
    return holder_of(pod, labels.get(JOB_UID_LABEL, "") if ours else "")
