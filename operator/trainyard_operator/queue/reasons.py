"""Why a job waits: reason codes and their sentences."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from fractions import Fraction
from types import MappingProxyType
from typing import NamedTuple

from trainyard_operator.quantity import written
from trainyard_operator.queue.models import Request


class Reason(NamedTuple):
    """Why a job waits.

    Attributes:
        code: Stable CamelCase reason.
        message: Sentence for the user.
    """

    code: str
    message: str


_NOTHING: Mapping[str, int] = MappingProxyType({})
_CAUSES = 3
"""Causes that a message names."""
_BEHIND_HEAD = Reason("WaitingForTurn", "Jobs before it in the queue wait for GPUs.")


def queue_held() -> Reason:
    """The administrator holds the queue."""
    return Reason("QueueHeld", "The administrator holds the queue; running jobs continue.")


def exceeds_capacity(request: Request, capacity: list[int], mismatches: Mapping[str, int] = _NOTHING) -> Reason:
    """The pool is too small even when it is empty.

    Args:
        request: The job's request.
        capacity: GPUs of each node of its pool.
        mismatches: Nodes that offer the resource and do not belong to the pool, counted by cause.
    """
    if not capacity:
        others = ", ".join(f"{_nodes(count)} {cause}" for cause, count in sorted(mismatches.items())[:_CAUSES])
        text = f"No node offers {request.pool}{f' to it: {others}' if others else ''}"
        return Reason("ExceedsCapacity", f"{text}; check spec.resources.gpuResource, nodeSelector and tolerations.")
    if max(capacity) < request.gpus:
        text = f"It needs {_gpus(request.gpus)} on one node; the largest node of {request.pool} has {max(capacity)}."
        return Reason("ExceedsCapacity", f"{text} Lower spec.resources.gpus.")
    text = f"It needs {_need(request)}; {request.pool} has {sum(capacity)} GPUs on {_nodes(len(capacity))} in all."
    return Reason("ExceedsCapacity", f"{text} Lower spec.resources.nodes or gpus.")


def waiting_for_nodes(pools: Mapping[str, tuple[int, int]]) -> str:
    """Return what an admitted job waits for, in a sentence.

    Args:
        pools: Nodes that exist, and most nodes, of each elastic pool that can serve it.
    """
    named = ", ".join(f"{name} ({exist} of at most {most} nodes)" for name, (exist, most) in pools.items())
    return f"The nodes have no room; its pods wait for the autoscaler to add one: {named}."


def namespace_cap(request: Request, cap: int, used: int) -> Reason:
    """The policy's GPU limit of the namespace is reached."""
    text = f"Namespace {request.namespace} may hold {_gpus(cap)} and holds {used}; this job needs {request.total}."
    return Reason("NamespaceCapReached", text)


def quota_exceeded(namespace: str, name: str, key: str, *, hard: Fraction, used: Fraction, need: Fraction) -> Reason:
    """A ResourceQuota has too little headroom.

    Args:
        namespace: The job's.
        name: The quota's.
        key: Resource name in the quota.
        hard: Most that the namespace may use.
        used: What it uses.
        need: What the job would use.
    """
    what = key.removeprefix("requests.") if "/" in key else key
    binary = key.endswith(("memory", "requests.storage"))
    text = (
        f"Namespace {namespace} may use {written(hard, binary=binary)} {what} (ResourceQuota {name}) and uses "
        f"{written(used, binary=binary)}; this job needs {written(need, binary=binary)}."
    )
    lowered = "spec.storage.size" if key.endswith("requests.storage") else "spec.resources"
    return Reason("QuotaExceeded", f"{text} Lower {lowered}, or ask for more." if need > hard else text)


def backing_off(until: datetime, cause: str) -> Reason:
    """The job backs off after a failed start."""
    return Reason("BackingOff", f"{cause} It keeps its place and is tried again at {until:%H:%M:%S} UTC.")


def insufficient_gpus(request: Request, free: dict[str, int], closed: Mapping[str, int] = _NOTHING) -> Reason:
    """The job is the head of its pool, and too few GPUs are free.

    Args:
        request: The job's request.
        free: Free GPUs of each node of its pool.
        closed: Nodes of the pool that take no pods now, counted by cause.
    """
    if request.nodes == 1:
        text = f"It needs {_gpus(request.gpus)} on one node; the most free is {max(free.values(), default=0)}."
    else:
        fitting = sum(count // request.gpus for count in free.values())
        text = f"It needs {_need(request)}; there is room for {fitting} of them."
    causes = ", ".join(f"{count} {cause}" for cause, count in sorted(closed.items())[:_CAUSES])
    return Reason("WaitingForGpus", f"{text} Nodes of {request.pool} that take no pods: {causes}." if causes else text)


def preempting(count: int) -> Reason:
    """Jobs of lower priority are preempted for this one."""
    if count == 1:
        return Reason("WaitingForPreempted", "One job of lower priority saves and frees its GPUs.")
    return Reason("WaitingForPreempted", f"{count} jobs of lower priority save and free their GPUs.")


def waiting_for_release() -> Reason:
    """Jobs that already stop free enough GPUs."""
    return Reason("WaitingForPreempted", "Jobs that are stopping free enough GPUs.")


def behind_head() -> Reason:
    """Another job is the head of the pool."""
    return _BEHIND_HEAD


def _need(request: Request) -> str:
    return f"{_gpus(request.gpus)} for each of {request.nodes} pods"


def _gpus(count: int) -> str:
    return f"{count} GPU{'' if count == 1 else 's'}"


def _nodes(count: int) -> str:
    return f"{count} node{'' if count == 1 else 's'}"
