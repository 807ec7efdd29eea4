"""Which nodes a pod may run on, and which it prefers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from trainyard_crds.placement import NodeRequirement
from trainyard_crds.trainingjob_resources import TolerationSpec
from trainyard_kube.paths import Object


class NodeChoice(Protocol):
    """The resources of a pod, as far as they select its nodes."""

    @property
    def gpus(self) -> int:
        """Its GPUs."""

    @property
    def gpu_resource(self) -> str:
        """Extended resource that counts them."""

    @property
    def node_selector(self) -> dict[str, str] | None:
        """Labels that a node must have."""

    @property
    def node_affinity(self) -> Sequence[NodeRequirement] | None:
        """Requirements on labels."""

    @property
    def tolerations(self) -> Sequence[TolerationSpec] | None:
        """Taints that the pod tolerates."""


def node_choice(resources: NodeChoice, prefer: tuple[str, ...] = ()) -> Object:
    """Return the parts of a pod that select its nodes.

    Pods with GPUs tolerate the taint that has the resource's name, as the queue assumes: the admission plugin
    ExtendedResourceToleration, which is off by default, would add that toleration to pods that request GPUs only.

    Args:
        resources: Node selector, tolerations and node affinity, which nodes must meet.
        prefer: Nodes that the pod prefers; it may run elsewhere, for example after a node is lost.
    """
    tolerations = [entry.model_dump(by_alias=True, exclude_none=True) for entry in resources.tolerations or []]
    if resources.gpus:
        tolerations.append({"key": resources.gpu_resource, "operator": "Exists"})
    affinity = _required(resources) | _preferred(prefer)
    optional = {
        "nodeSelector": resources.node_selector,
        "tolerations": tolerations,
        "affinity": {"nodeAffinity": affinity} if affinity else None,
    }
    return {key: value for key, value in optional.items() if value}


def _required(resources: NodeChoice) -> Object:
    if not resources.node_affinity:
        return {}
    expressions = [entry.model_dump(by_alias=True, exclude_none=True) for entry in resources.node_affinity]
    terms = [{"matchExpressions": expressions}]
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}


def _preferred(nodes: tuple[str, ...]) -> Object:
    """Each node is its own preference: a field selector of a node's name takes one value only."""
    if not nodes:
        return {}
    names = ({"key": "metadata.name", "operator": "In", "values": [node]} for node in sorted(set(nodes)))
    terms = [{"weight": 100, "preference": {"matchFields": [name]}} for name in names]
    return {"preferredDuringSchedulingIgnoredDuringExecution": terms}
