"""Why a job waits, in words."""

from __future__ import annotations

from datetime import datetime
from fractions import Fraction
from typing import NamedTuple

from trainyard_operator.quantity import written
from trainyard_operator.queue.models import Request


class Reason(NamedTuple):
    """What a waiting job waits for.

    Attributes:
        word: Stable CamelCase word.
        sentence: For the user.
    """

    word: str
    sentence: str


_BEHIND = Reason("WaitingForTurn", "Jobs before it in the queue wait for GPUs.")


def held() -> Reason:
    """Nothing is let in."""
    return Reason("QueueHeld", "The queue is held by its administrator; what runs goes on.")


def exceeds_capacity(request: Request, most: list[int]) -> Reason:
    """The pool could never hold it."""
    if not most:
        text = f"No node offers {request.pool}; check spec.resources.gpuResource, nodeSelector and tolerations."
        return Reason("ExceedsCapacity", text)
    if max(most) < request.gpus:
        text = f"It needs {_gpus(request.gpus)} on one node; the largest node of {request.pool} has {max(most)}."
        return Reason("ExceedsCapacity", f"{text} Lower spec.resources.gpus.")
    text = f"It needs {_need(request)}; {request.pool} has {sum(most)} GPUs on {_nodes(len(most))} in all."
    return Reason("ExceedsCapacity", f"{text} Lower spec.resources.nodes or gpus.")


def namespace_cap(request: Request, cap: int, used: int) -> Reason:
    """Its namespace holds as many as it may."""
    text = f"Namespace {request.namespace} may hold {_gpus(cap)} and holds {used}; this job needs {request.total}."
    return Reason("NamespaceCapReached", text)


def quota(namespace: str, name: str, key: str, *, hard: Fraction, used: Fraction, need: Fraction) -> Reason:
    """A ResourceQuota has no room for it.

    Args:
        namespace: The job's.
        name: The quota's.
        key: What is short, as the quota calls it.
        hard: Most that the namespace may use of it.
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


def backing_off(until: datetime, why: str) -> Reason:
    """Its last start failed."""
    return Reason("BackingOff", f"{why} It keeps its place and is tried again at {until:%H:%M:%S} UTC.")


def no_room(request: Request, free: dict[str, int]) -> Reason:
    """It is first, and its GPUs are taken."""
    most = max(free.values(), default=0)
    if request.nodes == 1:
        return Reason("WaitingForGpus", f"It needs {_gpus(request.gpus)} on one node; the most free is {most}.")
    fit = sum(count // request.gpus for count in free.values())
    return Reason("WaitingForGpus", f"It needs {_need(request)}; there is room for {fit} of them.")


def preempting(count: int) -> Reason:
    """Jobs of lower priority make room."""
    who = "One job of lower priority saves and makes" if count == 1 else f"{count} jobs of lower priority save and make"
    return Reason("WaitingForPreempted", f"{who} room.")


def making_room() -> Reason:
    """What is on its way out is enough."""
    return Reason("WaitingForPreempted", "Jobs that save and stop now make room.")


def behind() -> Reason:
    """Somebody is before it."""
    return _BEHIND


def _need(request: Request) -> str:
    return f"{_gpus(request.gpus)} for each of {request.nodes} pods"


def _gpus(count: int) -> str:
    return f"{count} GPU{'' if count == 1 else 's'}"


def _nodes(count: int) -> str:
    return f"{count} node{'' if count == 1 else 's'}"
