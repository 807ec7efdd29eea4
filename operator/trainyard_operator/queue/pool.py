"""GPU pools: jobs that need the same resource on the same nodes share one queue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from trainyard_crds.placement import NodeRequirement
from trainyard_crds.trainingjob_resources import TolerationSpec
from trainyard_operator.queue.node_affinity import Requirement, requirements_of

Object = dict[str, Any]
REPLICAS_LABEL = "nvidia.com/gpu.replicas"
"""Set by NVIDIA's GPU feature discovery. Above 1, the GPUs are time-sliced and share their memory."""
_REPELLING_EFFECTS = ("NoSchedule", "NoExecute")
_PASSING_TAINTS = (
    "node.kubernetes.io/",
    "node.cloudprovider.kubernetes.io/",
    "ToBeDeletedByClusterAutoscaler",
    "karpenter.sh/disrupt",
    "karpenter.sh/unregistered",
)
"""Beginnings of the keys of taints that a node has for a while: it is cordoned, short of something, new, or removed."""


class Taint(NamedTuple):
    """A node taint."""

    key: str
    value: str
    effect: str

    def __str__(self) -> str:
        return f"{self.key}{'=' if self.value else ''}{self.value}:{self.effect}"


class Toleration(NamedTuple):
    """A pod toleration; an empty key matches every key, an empty effect every effect."""

    key: str
    operator: str
    value: str
    effect: str

    def tolerates(self, taint: Taint) -> bool:
        """Return whether this toleration matches a taint, by the scheduler's rule."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        return self.operator == "Exists" or (bool(self.key) and self.value == taint.value)


@dataclass(frozen=True, kw_only=True)
class Node:
    """The part of a node that matters to the queue.

    Attributes:
        name: Its name.
        labels: Its labels.
        taints: Its taints, without those that pass: they count as `closed`.
        closed: Why it takes no pods now, as in "it is not ready"; empty while it does.
        allocatable: Allocatable units of each extended resource.
        uid: Its UID.
        unreachable_since: API timestamp since when its kubelet sends no heartbeat; empty while it does.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    closed: str = ""
    allocatable: Mapping[str, int] = field(default_factory=dict)
    uid: str = ""
    unreachable_since: str = ""

    @property
    def schedulable(self) -> bool:
        """Whether it takes pods now."""
        return not self.closed

    @property
    def time_sliced(self) -> bool:
        """Whether its GPUs are time-sliced."""
        text = self.labels.get(REPLICAS_LABEL, "1")
        return text.isdecimal() and int(text) > 1


class Pool(NamedTuple):
    """The node requirements of a job, without its number of GPUs.

    Attributes:
        resource: Extended resource of the GPUs; empty for jobs without GPUs.
        selector: Required node labels, sorted.
        tolerations: Tolerations of the pods, sorted.
        requirements: Further requirements on node labels, sorted.
    """

    resource: str
    selector: tuple[tuple[str, str], ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    requirements: tuple[Requirement, ...] = ()

    def __str__(self) -> str:
        labels = ",".join([*(f"{key}={value}" for key, value in self.selector), *map(str, self.requirements)])
        return f"{self.resource or 'cpu'}{f' ({labels})' if labels else ''}"

    def matches(self, node: Node) -> bool:
        """Return whether a node belongs to the pool, schedulable or not.

        Trainer pods tolerate the taint that has the resource's name (`pod_template.nodes`).
        """
        unfit = self._is_shared(node) or self._missing_label(node) or self._unmet(node) or self._untolerated_taint(node)
        return not unfit

    def mismatch(self, node: Node) -> str:
        """Return what keeps a node out of the pool, as in "a node with ..."; empty if it belongs to it."""
        if self._is_shared(node):
            return f"with time-sliced GPUs (label {REPLICAS_LABEL})"
        if label := self._missing_label(node):
            return f"without the label {label[0]}={label[1]}"
        if requirement := self._unmet(node):
            return f"that do not meet nodeAffinity {requirement}"
        if taint := self._untolerated_taint(node):
            return f"with the taint {taint}"
        return ""

    def _is_shared(self, node: Node) -> bool:
        return node.time_sliced and not self.resource.endswith(".shared")

    def _missing_label(self, node: Node) -> tuple[str, str] | None:
        return next(((key, value) for key, value in self.selector if node.labels.get(key) != value), None)

    def _unmet(self, node: Node) -> Requirement | None:
        return next((each for each in self.requirements if not each.is_met(node.labels)), None)

    def _untolerated_taint(self, node: Node) -> Taint | None:
        return next((taint for taint in node.taints if not self._tolerates(taint)), None)

    def _tolerates(self, taint: Taint) -> bool:
        harmless = taint.effect not in _REPELLING_EFFECTS or taint.key == self.resource
        return harmless or any(toleration.tolerates(taint) for toleration in self.tolerations)


class PoolResources(Protocol):
    """The resources of a pod, as far as they decide which pool it uses."""

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


def pool_of(resources: PoolResources) -> Pool:
    """Return the pool of a `spec.resources` block."""
    if not resources.gpus:
        return Pool("")
    found = (_toleration(entry) for entry in resources.tolerations or [])
    return Pool(
        resource=resources.gpu_resource,
        selector=tuple(sorted((resources.node_selector or {}).items())),
        tolerations=tuple(sorted(set(found))),
        requirements=requirements_of(resources.node_affinity or []),
    )


def node_of(obj: Object) -> Node:
    """Parse a v1 Node."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    ready = next((entry for entry in status.get("conditions") or [] if entry["type"] == "Ready"), {"status": ""})
    return Node(
        name=obj["metadata"]["name"],
        labels=obj["metadata"].get("labels") or {},
        taints=tuple(taint for taint in _taints(spec.get("taints") or []) if not _is_passing(taint)),
        closed=_closed(obj, is_ready=ready["status"] == "True"),
        allocatable=units(status.get("allocatable") or {}),
        uid=obj["metadata"].get("uid", ""),
        unreachable_since=str(ready.get("lastTransitionTime", "")) if ready["status"] == "Unknown" else "",
    )


def units(quantities: Mapping[str, Any]) -> dict[str, int]:
    """Return the extended resources of a resource list, which are whole numbers."""
    return {key: int(value) for key, value in quantities.items() if "/" in key and str(value).isdecimal()}


def _closed(node: Object, *, is_ready: bool) -> str:
    spec = node.get("spec") or {}
    if "deletionTimestamp" in node["metadata"]:
        return "being deleted"
    if spec.get("unschedulable", False):
        return "cordoned"
    if not is_ready:
        return "not ready"
    passing = (taint for taint in _taints(spec.get("taints") or []) if _is_passing(taint))
    found = next((taint for taint in passing if taint.effect in _REPELLING_EFFECTS), None)
    return f"tainted {found.key}" if found else ""


def _is_passing(taint: Taint) -> bool:
    return taint.key.startswith(_PASSING_TAINTS)


def _taints(entries: Iterable[Object]) -> Iterator[Taint]:
    return (Taint(entry["key"], entry.get("value") or "", entry["effect"]) for entry in entries)


def _toleration(entry: TolerationSpec) -> Toleration:
    return Toleration(entry.key or "", entry.operator or "Equal", entry.value or "", entry.effect or "")
