"""What ResourceQuotas leave of a namespace. A job without headroom is told so and holds up nobody."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from trainyard_operator.quantity import exact
from trainyard_operator.queue import reasons
from trainyard_operator.queue.models import Admitted, Request
from trainyard_operator.queue.reasons import Reason

Object = dict[str, Any]
_JOBS = "count/jobs.batch"
_MATCHING_SCOPES = ("NotTerminating", "NotBestEffort")
"""Scopes that a training pod has: it names what it needs, and no deadline of its own. It names no PriorityClass."""


class Quota(NamedTuple):
    """A ResourceQuota that counts training pods.

    Attributes:
        namespace: Its namespace.
        name: Its name.
        hard: Most that may be used, by the quota's names of resources.
        used: What is used, as far as its controller has told.
    """

    namespace: str
    name: str
    hard: Mapping[str, Fraction]
    used: Mapping[str, Fraction]


def quota_of(obj: Object) -> Quota | None:
    """Read a v1 ResourceQuota; None for one that counts other pods."""
    spec = obj.get("spec") or {}
    selected = (spec.get("scopeSelector") or {}).get("matchExpressions") or []
    scopes = [{"scopeName": name, "operator": "Exists"} for name in spec.get("scopes") or []]
    if not all(_has_training_pods(scope) for scope in [*scopes, *selected]):
        return None
    used = (obj.get("status") or {}).get("used") or {}
    metadata = obj["metadata"]
    return Quota(metadata["namespace"], metadata["name"], _amounts(spec.get("hard") or {}), _amounts(used))


def _has_training_pods(scope: Object) -> bool:
    if scope["scopeName"] == "PriorityClass":
        return scope["operator"] in ("NotIn", "DoesNotExist")
    return scope["scopeName"] in _MATCHING_SCOPES


def _amounts(quantities: Mapping[str, Any]) -> dict[str, Fraction]:
    return {key: exact(str(value)) for key, value in quantities.items()}


class Quotas:
    """All quotas that count training pods, by namespace."""

    def __init__(self) -> None:
        self._quotas: dict[str, Quota] = {}
        self._by_namespace: dict[str, dict[str, Quota]] = {}

    def put(self, uid: str, quota: Quota | None) -> bool:
        """Take in a quota as it is now, None when it is gone; whether anything changed."""
        before = self._quotas.pop(uid, None)
        if before is not None:
            self._by_namespace[before.namespace].pop(uid)
            if not self._by_namespace[before.namespace]:
                del self._by_namespace[before.namespace]
        if quota is not None:
            self._quotas[uid] = quota
            self._by_namespace.setdefault(quota.namespace, {})[uid] = quota
        return before != quota

    def of(self, namespace: str) -> Collection[Quota]:
        """The quotas of a namespace."""
        return self._by_namespace.get(namespace, {}).values()


@lru_cache(maxsize=1024)
def pod_needs(gpus: int, gpu_resource: str, cpu: str, memory: str) -> Mapping[str, Fraction]:
    """What one training pod uses, by the names that quotas have for it; the same mapping for the same pods.

    Args:
        gpus: GPUs of the pod.
        gpu_resource: What they are counted by.
        cpu: Cores, a quantity; request and limit are the same.
        memory: Bytes, a quantity; request and limit are the same.
    """
    needs = {"pods": Fraction(1), "count/pods": Fraction(1)}
    for key, amount in (("cpu", exact(cpu)), ("memory", exact(memory))):
        needs |= {key: amount, f"requests.{key}": amount, f"limits.{key}": amount}
    return needs | ({f"requests.{gpu_resource}": Fraction(gpus)} if gpus else {})


class Headroom:
    """What is left during one round.

    Args:
        quotas: The quotas as their controller tells them.
        admitted: Every job that was let in; what its pods that are not there yet will use is held back.
    """

    def __init__(self, quotas: Quotas, admitted: Iterable[Admitted]) -> None:
        self._quotas = quotas
        self._promised: dict[str, defaultdict[str, Fraction]] = {}
        for job in admitted:
            if not job.leaving:
                self._hold(job.request, missing(job))

    def refusal(self, request: Request, pods: int | None = None) -> Reason | None:
        """Why a job cannot have so many pods, all of its gang if nothing is said; None where it can."""
        for quota in self._quotas.of(request.namespace):
            for key, hard in quota.hard.items():
                need = _need(request, key, request.nodes if pods is None else pods)
                used = quota.used.get(key, Fraction(0)) + self._promise(request.namespace)[key]
                if need and used + need > hard:
                    return reasons.quota(request.namespace, quota.name, key, hard=hard, used=used, need=need)
        return None

    def take(self, request: Request) -> None:
        """Hold back what a job that was just let in will use."""
        self._hold(request, request.nodes)

    def _hold(self, request: Request, pods: int) -> None:
        keys = {key for quota in self._quotas.of(request.namespace) for key in quota.hard}
        for key in keys:
            self._promise(request.namespace)[key] += _need(request, key, pods)

    def _promise(self, namespace: str) -> defaultdict[str, Fraction]:
        return self._promised.setdefault(namespace, defaultdict(Fraction))


def missing(job: Admitted) -> int:
    """Pods that a job has yet to get."""
    return max(0, job.request.nodes - job.pods - job.done)


def _need(request: Request, key: str, pods: int) -> Fraction:
    if key == _JOBS:
        return Fraction(0 if request.made else 1)
    return request.needs.get(key, Fraction(0)) * pods
