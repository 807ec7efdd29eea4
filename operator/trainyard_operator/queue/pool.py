"""GPU pools: jobs that ask for the same resource of the same nodes queue behind one another, and only they do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from trainyard_crds.trainingjob_resources import Resources, TolerationSpec

Object = dict[str, Any]
REPLICAS_LABEL = "nvidia.com/gpu.replicas"
"""Set by NVIDIA's feature discovery; above 1, the node's GPUs are slices in time without memory of their own."""
_KEEPS_PODS_OUT = ("NoSchedule", "NoExecute")


class Taint(NamedTuple):
    """What keeps pods off a node."""

    key: str
    value: str
    effect: str


class Toleration(NamedTuple):
    """What lets a pod pass a taint; an empty key means every key, an empty effect every effect."""

    key: str
    operator: str
    value: str
    effect: str

    def passes(self, taint: Taint) -> bool:
        """Whether a pod with this toleration may stand a taint (the scheduler's own rule)."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        return self.operator == "Exists" or (bool(self.key) and self.value == taint.value)


@dataclass(frozen=True, kw_only=True)
class Node:
    """What the queue knows of a node.

    Attributes:
        name: Its name.
        labels: Its labels.
        taints: Its taints.
        open: Whether it is ready and not cordoned.
        allocatable: Units of each extended resource it offers.
        uid: Its UID.
        silent_since: API timestamp of when it stopped to answer; empty where it answers.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    open: bool = True
    allocatable: Mapping[str, int] = field(default_factory=dict)
    uid: str = ""
    silent_since: str = ""

    @property
    def slices(self) -> bool:
        """Whether its GPUs are shared in time."""
        text = self.labels.get(REPLICAS_LABEL, "1")
        return text.isdecimal() and int(text) > 1


class Pool(NamedTuple):
    """What a job asks of a node, beside the number of GPUs.

    Attributes:
        resource: Extended resource a GPU is counted by; empty for jobs without GPUs.
        selector: Labels the node must have, sorted.
        tolerations: Taints the pod passes, sorted.
    """

    resource: str
    selector: tuple[tuple[str, str], ...] = ()
    tolerations: tuple[Toleration, ...] = ()

    def __str__(self) -> str:
        labels = ",".join(f"{key}={value}" for key, value in self.selector)
        return f"{self.resource or 'cpu'}{f' ({labels})' if labels else ''}"

    def has(self, node: Node) -> bool:
        """Whether the node is one of the pool's, ready or not.

        A pod that asks for an extended resource passes its taint where the cluster runs the admission plugin
        ExtendedResourceToleration; the taint of the resource's own name is therefore taken as passed.
        """
        if node.slices and not self.resource.endswith(".shared"):
            return False
        if any(node.labels.get(key) != value for key, value in self.selector):
            return False
        return all(self._passes(taint) for taint in node.taints)

    def _passes(self, taint: Taint) -> bool:
        free = taint.effect not in _KEEPS_PODS_OUT or taint.key == self.resource
        return free or any(toleration.passes(taint) for toleration in self.tolerations)


def pool_of(resources: Resources) -> Pool:
    """Return the pool of a `spec.resources` block."""
    if not resources.gpus:
        return Pool("")
    found = (_toleration(entry) for entry in resources.tolerations or [])
    return Pool(
        resource=resources.gpu_resource,
        selector=tuple(sorted((resources.node_selector or {}).items())),
        tolerations=tuple(sorted(set(found))),
    )


def node_of(obj: Object) -> Node:
    """What the queue knows of a v1 Node."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    ready = next((entry for entry in status.get("conditions") or [] if entry["type"] == "Ready"), {"status": ""})
    leaving = "deletionTimestamp" in obj["metadata"]
    return Node(
        name=obj["metadata"]["name"],
        labels=obj["metadata"].get("labels") or {},
        taints=tuple(_taints(spec.get("taints") or [])),
        open=ready["status"] == "True" and not spec.get("unschedulable", False) and not leaving,
        allocatable=units(status.get("allocatable") or {}),
        uid=obj["metadata"].get("uid", ""),
        silent_since=str(ready.get("lastTransitionTime", "")) if ready["status"] == "Unknown" else "",
    )


def units(quantities: Mapping[str, Any]) -> dict[str, int]:
    """The extended resources among quantities, which are whole numbers; cpu, memory and the like are left out."""
    return {key: int(value) for key, value in quantities.items() if "/" in key and str(value).isdecimal()}


def _taints(entries: Iterable[Object]) -> Iterable[Taint]:
    # The scheduler's own marks of a node that is cordoned or not ready are told by `open`.
    for entry in entries:
        if not entry["key"].startswith("node.kubernetes.io/"):
            yield Taint(entry["key"], entry.get("value") or "", entry["effect"])


def _toleration(entry: TolerationSpec) -> Toleration:
    return Toleration(entry.key or "", entry.operator or "Equal", entry.value or "", entry.effect or "")
