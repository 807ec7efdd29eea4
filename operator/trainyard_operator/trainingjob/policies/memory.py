"""Warns of a run that is predicted to need more memory than its device, or the GPUs it may get, have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trainyard_kube.paths import Object
from trainyard_operator.reconcile.fields import condition
from trainyard_operator.reconcile.plan import NODES, Need
from trainyard_operator.trainingjob.model import Caution, Observed

CONDITION = "MemoryTooSmall"
_MOST_NODES = 3
_MIB = 2**20


def memory_caution(observed: Observed) -> Caution | Need | None:
    """What to warn of, where there is something; or the GPU nodes to look up first.

    The trainer predicts the peak and says what its device has, so this is known once the first pod has read the model's
    shape, and for every pod after it. What other nodes of the pool have is told by their label `<resource>.memory`
    (MiB, as NVIDIA's GPU feature discovery writes it); of nodes without it nothing is said. There the trainer would
    choose anew what it computes again, so they are held against the least it can do with.
    """
    estimate = observed.status.get("memoryEstimate")
    if estimate is None:
        return None
    peak, device = int(estimate["bytes"]), estimate.get("deviceBytes")
    resources = observed.spec.resources
    if device is not None and peak > device:
        where = "its GPU" if resources.gpus else "its container"
        return _caution("DeviceTooSmall", peak, f"{where} has {_gib(device)} for it", estimate)
    if not resources.gpus:
        return None
    least = int(estimate.get("leastBytes", peak))
    label = f"{resources.gpu_resource}.memory"
    need = Need(NODES, _selector(resources.node_selector or {}, label))
    if need not in observed.answers:
        return _known(observed, least) or need
    small = sorted(_too_small(observed.answers[need] or (), label, least))
    if not small:
        return None
    names = ", ".join(f"{name} ({_gib(size)})" for size, name in small[:_MOST_NODES])
    more = ", ..." if len(small) > _MOST_NODES else ""
    where = f"{len(small)} of the {len(observed.answers[need])} nodes it may run on have smaller GPUs: {names}{more}"
    return _caution("PoolTooSmall", least, where, estimate)


def _known(observed: Observed, least: int) -> Caution | None:
    """What was said of the same prediction before: the nodes need not be looked at again."""
    known = condition(observed.job, CONDITION)
    if known is None or known["reason"] != "PoolTooSmall" or _gib(least) not in known["message"]:
        return None
    return Caution(CONDITION, known["reason"], known["message"])


def _caution(reason: str, peak: int, problem: str, estimate: Object) -> Caution:
    advice = f" What helps most: {estimate['advice']}." if estimate.get("advice") else ""
    return Caution(CONDITION, reason, f"The run is predicted to need {_gib(peak)}; {problem}.{advice}")


def _selector(labels: Mapping[str, str], label: str) -> str:
    return ",".join([*(f"{name}={value}" for name, value in sorted(labels.items())), label])


def _too_small(nodes: Iterable[Object], label: str, peak: int) -> Iterable[tuple[int, str]]:
    """(bytes of a GPU, node) where the run does not fit."""
    for node in nodes:
        text = str(node["metadata"].get("labels", {}).get(label, ""))
        if text.isdecimal() and 0 < int(text) * _MIB < peak:
            yield int(text) * _MIB, node["metadata"]["name"]


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
