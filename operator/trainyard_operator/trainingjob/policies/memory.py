"""Warns of a run that is predicted to need more memory than its device, or the GPUs of its pool, have."""

from __future__ import annotations

from collections.abc import Iterable

from trainyard_crds.placement import NodeRequirement
from trainyard_crds.trainingjob_resources import Resources
from trainyard_kube.paths import Object
from trainyard_operator.reconcile.fields import condition
from trainyard_operator.reconcile.plan import NODES, Need
from trainyard_operator.trainingjob.model import Caution, Observed

CONDITION = "MemoryTooSmall"
_LISTED_NODES = 3
_MIB = 2**20


def memory_caution(observed: Observed) -> Caution | Need | None:
    """Return the warning, if there is one, or the GPU nodes to look up first.

    The trainer predicts the peak and reports its device's memory, so the prediction is known once the first pod has
    read the model's shape. The memory of the pool's other nodes is their label `<resource>.memory` (MiB, as NVIDIA's
    GPU feature discovery writes it); nodes without it are skipped. On another node the trainer would select its
    recompute mode again, so those nodes are compared with the smallest peak of all modes.
    """
    estimate = observed.status.get("memoryEstimate")
    if estimate is None:
        return None
    peak, device = int(estimate["bytes"]), estimate.get("deviceBytes")
    uses_gpus = observed.spec.resources.gpus > 0
    if device is not None and peak > device:
        where = "its GPU" if uses_gpus else "its container"
        return _caution("DeviceTooSmall", peak, f"{where} has {_gib(device)} for it", estimate)
    return _pool_caution(observed, estimate) if uses_gpus else None


def _pool_caution(observed: Observed, estimate: Object) -> Caution | Need | None:
    """Return the warning about nodes of the pool with smaller GPUs."""
    resources, least = observed.spec.resources, int(estimate.get("leastBytes") or estimate["bytes"])
    label = f"{resources.gpu_resource}.memory"
    need = Need(NODES, _selector(resources, label))
    if need not in observed.answers:
        return _known(observed, least) or need
    nodes = observed.answers[need] or ()
    small = sorted(_too_small(nodes, label, least))
    if not small:
        return None
    names = ", ".join(f"{name} ({_gib(size)})" for size, name in small[:_LISTED_NODES])
    more = ", ..." if len(small) > _LISTED_NODES else ""
    where = f"{len(small)} of the {len(nodes)} nodes it may run on have smaller GPUs: {names}{more}"
    where += ". Exclude them with spec.resources.nodeAffinity, or lower what the run needs"
    return _caution("PoolTooSmall", least, where, estimate)


def _known(observed: Observed, least: int) -> Caution | None:
    """Return the stored warning for the same prediction, which saves the look-up."""
    known = condition(observed.job, CONDITION)
    if known is None or known["reason"] != "PoolTooSmall" or _gib(least) not in known["message"]:
        return None
    return Caution(CONDITION, known["reason"], known["message"])


def _caution(reason: str, peak: int, problem: str, estimate: Object) -> Caution:
    advice = f" What helps most: {estimate['advice']}." if estimate.get("advice") else ""
    return Caution(CONDITION, reason, f"The run is predicted to need {_gib(peak)}; {problem}.{advice}")


def _selector(resources: Resources, label: str) -> str:
    """Return the label selector of the nodes that the pods may use and whose GPU memory is known."""
    labels = (f"{name}={value}" for name, value in sorted((resources.node_selector or {}).items()))
    return ",".join([*labels, *(_term(entry) for entry in resources.node_affinity or []), label])


def _term(requirement: NodeRequirement) -> str:
    if requirement.values is None:
        return requirement.key if requirement.operator == "Exists" else f"!{requirement.key}"
    return f"{requirement.key} {requirement.operator.lower()} ({','.join(requirement.values)})"


def _too_small(nodes: Iterable[Object], label: str, peak: int) -> Iterable[tuple[int, str]]:
    """Yield the GPU memory in bytes and the name of each node on which the run does not fit."""
    for node in nodes:
        text = str(node["metadata"].get("labels", {}).get(label, ""))
        if text.isdecimal() and 0 < int(text) * _MIB < peak:
            yield int(text) * _MIB, node["metadata"]["name"]


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
