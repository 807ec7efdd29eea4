"""Feeds the queue's inventory: every node, and every pod that holds an extended resource, whoever made it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

from trainyard_crds.contract import JOB_UID_LABEL, ROLE_LABEL
from trainyard_operator.errors import ApiError
from trainyard_operator.kube.client import Kube, Object
from trainyard_operator.queue.inventory import Holder, Inventory, holder_of
from trainyard_operator.queue.pool import node_of

logger = logging.getLogger(__name__)

_NODES, _PODS = "/api/v1/nodes", "/api/v1/pods"
_PERIOD, _RETRY = 300.0, 5.0
_TRAIN = "train"


class GpuFeed:
    """Keeps an inventory true by watch events and by a list now and then.

    Args:
        kube: The API server.
        inventory: What is kept.
        wake: Called when something changed that the queue looks at.
    """

    def __init__(self, kube: Kube, inventory: Inventory, wake: Callable[[], None]) -> None:
        self._kube, self._inventory, self._wake = kube, inventory, wake
        self._versions: dict[str, int] = {}
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """List soon: a watch lost its place."""
        self._asked.set()

    def node(self, event: Any) -> None:
        """Take in a watch event of a node."""
        obj = event["object"]
        if event["type"] == "DELETED":
            self._versions.pop(obj["metadata"]["uid"], None)
            self._inventory.remove_node(obj["metadata"]["name"])
            self._wake()
        elif self._take_node(_trimmed_node(obj)):
            self._wake()

    def pod(self, event: Any) -> None:
        """Take in a watch event of a pod."""
        obj, uid = event["object"], event["object"]["metadata"]["uid"]
        if event["type"] == "DELETED":
            self._versions.pop(uid, None)
            if self._inventory.put_pod(uid, None):
                self._wake()
        elif self._take_pod(_trimmed_pod(obj)):
            self._wake()

    async def prime(self) -> None:
        """Fill the inventory before anything is decided.

        Raises:
            ApiError: a list failed.
        """
        nodes, nodes_version = await self._kube.list_all(_NODES, keep=_trimmed_node)
        pods, pods_version = await self._kube.list_all(_PODS, keep=_trimmed_pod)
        changed = self._replace_nodes(nodes, int(nodes_version))
        if self._replace_pods(pods, int(pods_version)) or changed:
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
                logger.warning("nodes and pods could not be listed, next try in %.0f s: %s", _RETRY, error)
                await asyncio.sleep(_RETRY)
                self._asked.set()

    def _take_node(self, node: Object) -> bool:
        return self._is_news(node) and self._inventory.put_node(node["node"])

    def _take_pod(self, pod: Object) -> bool:
        return self._is_news(pod) and self._inventory.put_pod(pod["metadata"]["uid"], pod["holder"])

    def _is_news(self, obj: Object) -> bool:
        """Whether this is newer than what is known: a list and a watch may cross."""
        metadata = obj["metadata"]
        version = int(metadata["resourceVersion"])
        if self._versions.get(metadata["uid"], -1) >= version:
            return False
        self._versions[metadata["uid"]] = version
        return True

    def _replace_nodes(self, nodes: list[Object], version: int) -> bool:
        """Take in a complete list; whether it changed anything."""
        listed, changed = {node["metadata"]["uid"] for node in nodes}, False
        for gone in [known for known in self._inventory.nodes.values() if known.uid not in listed]:
            if self._versions.get(gone.uid, 0) <= version:  # else it is newer than the list
                self._inventory.remove_node(gone.name)
                self._versions.pop(gone.uid, None)
                changed = True
        for node in nodes:
            changed |= self._take_node(node)
        return changed

    def _replace_pods(self, pods: list[Object], version: int) -> bool:
        """Take in a complete list; whether it changed anything."""
        listed, changed = {pod["metadata"]["uid"] for pod in pods}, False
        for holder in [holder for holder in self._inventory.holders() if holder.uid not in listed]:
            if self._versions.get(holder.uid, 0) <= version:
                changed |= self._inventory.put_pod(holder.uid, None)
        for pod in pods:
            changed |= self._take_pod(pod)
        kept = listed | {node.uid for node in self._inventory.nodes.values()}
        self._versions = {uid: known for uid, known in self._versions.items() if uid in kept or known > version}
        return changed


def _trimmed_node(obj: Object) -> Object:
    return {"metadata": _identity(obj), "node": node_of(obj)}


def _trimmed_pod(obj: Object) -> Object:
    return {"metadata": _identity(obj), "holder": _holder(obj)}


def _identity(obj: Object) -> Object:
    return {key: obj["metadata"][key] for key in ("uid", "resourceVersion")}


def _holder(pod: Object) -> Holder | None:
    labels = pod["metadata"].get("labels") or {}
    ours = labels.get(ROLE_LABEL) == _TRAIN
    return holder_of(pod, labels.get(JOB_UID_LABEL, "") if ours else "")
