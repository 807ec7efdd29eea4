"""GPU pools: jobs that need the same resource on the same nodes share one queue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from trainyard_crds.trainingjob_resources import Resources, TolerationSpec
from trainyard_operator.queue.node_affinity import Requirement, requirements_of

Object = dict[str, Any]
REPLICAS_LABEL = "nvidia.com/gpu.replicas"
"""Set by NVIDIA's GPU feature discovery. Above 1, the GPUs are time-sliced and share their memory."""
_REPELLING_EFFECTS = ("NoSchedule", "NoExecute")


class Taint(NamedTuple):
    """A node taint."""

    key: str
    value: str
    effect: str


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
        taints: Its taints.
        schedulable: Whether it is ready and not cordoned.
        allocatable: Allocatable units of each extended resource.
        uid: Its UID.
        unreachable_since: API timestamp since when its kubelet sends no heartbeat; empty while it does.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    schedulable: bool = True
    allocatable: Mapping[str, int] = field(default_factory=dict)
    uid: str = ""
    unreachable_since: str = ""

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

        The admission plugin ExtendedResourceToleration adds a toleration for the taint that has the resource's name,
        so that taint counts as tolerated.
        """
        if node.time_sliced and not self.resource.endswith(".shared"):
            return False
        if any(node.labels.get(key) != value for key, value in self.selector):
            return False
        if not all(requirement.is_met(node.labels) for requirement in self.requirements):
            return False
        return all(self._tolerates(taint) for taint in node.taints)

    def _tolerates(self, taint: Taint) -> bool:
        harmless = taint.effect not in _REPELLING_EFFECTS or taint.key == self.resource
        return harmless or any(toleration.tolerates(taint) for toleration in self.tolerations)


def pool_of(resources: Resources) -> Pool:
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
    deleted = "deletionTimestamp" in obj["metadata"]
    return Node(
        name=obj["metadata"]["name"],
        labels=obj["metadata"].get("labels") or {},
        taints=tuple(_taints(spec.get("taints") or [])),
        schedulable=ready["status"] == "True" and not spec.get("unschedulable", False) and not deleted,
        allocatable=units(status.get("allocatable") or {}),
        uid=obj["metadata"].get("uid", ""),
        unreachable_since=str(ready.get("lastTransitionTime", "")) if ready["status"] == "Unknown" else "",
    )


def units(quantities: Mapping[str, Any]) -> dict[str, int]:
    """Return the extended resources of a resource list, which are whole numbers."""
    return {key: int(value) for key, value in quantities.items() if "/" in key and str(value).isdecimal()}


def _taints(entries: Iterable[Object]) -> Iterable[Taint]:
    # Taints of a node that is cordoned or not ready are covered by `schedulable`.
    for entry in entries:
        if not entry["key"].startswith("node.kubernetes.io/"):
            yield Taint(entry["key"], entry.get("value") or "", entry["effect"])


def _toleration(entry: TolerationSpec) -> Toleration:
    return Toleration(entry.key or "", entry.operator or "Equal", entry.value or "", entry.effect or "")
