"""Why a job waits: reason codes and their sentences."""

from __future__ import annotations

from datetime import datetime
from fractions import Fraction
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


_BEHIND_HEAD = Reason("WaitingForTurn", "Jobs before it in the queue wait for GPUs.")


def queue_held() -> Reason:
    """The administrator holds the queue."""
    return Reason("QueueHeld", "The administrator holds the queue; running jobs continue.")


def exceeds_capacity(request: Request, capacity: list[int]) -> Reason:
    """The pool is too small even when it is empty.

    Args:
        request: The job's request.
        capacity: GPUs of each node of its pool.
    """
    if not capacity:
        text = f"No node offers {request.pool}; check spec.resources.gpuResource, nodeSelector and tolerations."
        return Reason("ExceedsCapacity", text)
    if max(capacity) < request.gpus:
        text = f"It needs {_gpus(request.gpus)} on one node; the largest node of {request.pool} has {max(capacity)}."
        return Reason("ExceedsCapacity", f"{text} Lower spec.resources.gpus.")
    text = f"It needs {_need(request)}; {request.pool} has {sum(capacity)} GPUs on {_nodes(len(capacity))} in all."
    return Reason("ExceedsCapacity", f"{text} Lower spec.resources.nodes or gpus.")


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
    binary = key.endswith("memory")
    text = (
        f"Namespace {namespace} may use {written(hard, binary=binary)} {what} (ResourceQuota {name}) and uses "
        f"{written(used, binary=binary)}; this job needs {written(need, binary=binary)}."
    )
    return Reason("QuotaExceeded", f"{text} Lower spec.resources, or ask for more." if need > hard else text)


def backing_off(until: datetime, cause: str) -> Reason:
    """The job backs off after a failed start."""
    return Reason("BackingOff", f"{cause} It keeps its place and is tried again at {until:%H:%M:%S} UTC.")


def insufficient_gpus(request: Request, free: dict[str, int]) -> Reason:
    """The job is the head of its pool, and too few GPUs are free."""
    most = max(free.values(), default=0)
    if request.nodes == 1:
        return Reason("WaitingForGpus", f"It needs {_gpus(request.gpus)} on one node; the most free is {most}.")
    fitting = sum(count // request.gpus for count in free.values())
    return Reason("WaitingForGpus", f"It needs {_need(request)}; there is room for {fitting} of them.")


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
