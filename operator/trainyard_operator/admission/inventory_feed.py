"""Informers of the queue's inventory: nodes, all pods that hold extended resources, and ResourceQuotas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trainyard_crds.constants import JOB_UID_LABEL, ROLE_LABEL
from trainyard_crds.serving import DEPLOYMENT_UID_LABEL, SERVE_ROLE
from trainyard_kube.cache import Cache
from trainyard_kube.client import KubeClient
from trainyard_kube.informer import Informer
from trainyard_kube.paths import NODES, PODS, RESOURCE_QUOTAS, Object
from trainyard_kube.resource import ResourceSpec
from trainyard_operator.queue.inventory import Holder, Inventory, holder_of
from trainyard_operator.queue.pool import Node, node_of
from trainyard_operator.queue.quota import Quota, Quotas, quota_of

_OWNER_LABELS = {"train": JOB_UID_LABEL, SERVE_ROLE: DEPLOYMENT_UID_LABEL}
"""The label with the owner's UID, by the role of a pod that was admitted."""


class InventoryFeed:
    """Applies what the informers cache to an inventory and to quotas.

    Args:
        kube: The API server.
        inventory: Receives nodes and pods.
        quotas: Receives ResourceQuotas.
        clock: Monotonic seconds.
        wake: Called after a change that may affect admission.
        on_node_readiness: Called with the name of a node that became unreachable, became reachable again or was
            deleted while unreachable.

    Attributes:
        nodes, pods, quotas: The informers.
    """

    def __init__(
        self,
        kube: KubeClient,
        inventory: Inventory,
        quotas: Quotas,
        *,
        clock: Callable[[], float],
        wake: Callable[[], None],
        on_node_readiness: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._inventory, self._quotas = inventory, quotas
        self._wake, self._on_node_readiness = wake, on_node_readiness
        nodes = ResourceSpec[Node](kind="nodes", collection=NODES, trim=node_of)
        pods = ResourceSpec[Holder](kind="pods", collection=PODS, trim=_holder)
        resource_quotas = ResourceSpec[Quota](kind="resourcequotas", collection=RESOURCE_QUOTAS, trim=quota_of)
        self.nodes = Informer(kube, nodes, Cache(node_of, self._on_node), clock)
        self.pods = Informer(kube, pods, Cache(_holder, self._on_pod), clock)
        self.quotas = Informer(kube, resource_quotas, Cache(quota_of, self._on_quota), clock)

    @property
    def informers(self) -> list[Informer[Any]]:
        """All informers, in the order in which to list them."""
        return [self.nodes, self.pods, self.quotas]

    def _on_node(self, uid: str, before: Node | None, after: Node | None) -> None:
        unreachable = set(self._inventory.unreachable)
        if after is not None:
            changed = self._inventory.put_node(after)
        else:
            assert before is not None
            known = self._inventory.nodes.get(before.name)
            changed = known is not None and known.uid == uid
            if changed:
                self._inventory.remove_node(before.name)
        for name in unreachable ^ set(self._inventory.unreachable):
            self._on_node_readiness(name)
        if changed:
            self._wake()

    def _on_pod(self, uid: str, _before: Holder | None, after: Holder | None) -> None:
        if self._inventory.put_pod(uid, after):
            self._wake()

    def _on_quota(self, uid: str, _before: Quota | None, after: Quota | None) -> None:
        if self._quotas.put(uid, after):
            self._wake()


def _holder(pod: Object) -> Holder | None:
    labels = pod["metadata"].get("labels") or {}
    owner_label = _OWNER_LABELS.get(labels.get(ROLE_LABEL, ""))
    return holder_of(pod, labels.get(owner_label, "") if owner_label else "")
