"""Headroom of ResourceQuotas. A job without headroom waits with a reason and blocks no other job."""

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
_CLASS = "{}.storageclass.storage.k8s.io/{}"
_MATCHING_SCOPES = ("NotTerminating", "NotBestEffort")
"""Scopes of trainer pods: they set requests, no activeDeadlineSeconds and no PriorityClass."""


class Quota(NamedTuple):
    """A ResourceQuota that applies to trainer pods.

    Attributes:
        namespace: Its namespace.
        name: Its name.
        hard: Limits by resource name.
        used: Usage by resource name, as its controller last published it.
    """

    namespace: str
    name: str
    hard: Mapping[str, Fraction]
    used: Mapping[str, Fraction]


def quota_of(obj: Object) -> Quota | None:
    """Parse a v1 ResourceQuota; None if it does not apply to trainer pods."""
    spec = obj.get("spec") or {}
    selected = (spec.get("scopeSelector") or {}).get("matchExpressions") or []
    scopes = [{"scopeName": name, "operator": "Exists"} for name in spec.get("scopes") or []]
    if not all(_matches_trainer_pods(scope) for scope in [*scopes, *selected]):
        return None
    used = (obj.get("status") or {}).get("used") or {}
    metadata = obj["metadata"]
    return Quota(metadata["namespace"], metadata["name"], _amounts(spec.get("hard") or {}), _amounts(used))


def _matches_trainer_pods(scope: Object) -> bool:
    if scope["scopeName"] == "PriorityClass":
        return scope["operator"] in ("NotIn", "DoesNotExist")
    return scope["scopeName"] in _MATCHING_SCOPES


def _amounts(quantities: Mapping[str, Any]) -> dict[str, Fraction]:
    return {key: exact(str(value)) for key, value in quantities.items()}


class Quotas:
    """All ResourceQuotas that apply to trainer pods, by namespace."""

    def __init__(self) -> None:
        self._quotas: dict[str, Quota] = {}
        self._by_namespace: dict[str, dict[str, Quota]] = {}

    def put(self, uid: str, quota: Quota | None) -> bool:
        """Store a quota, or remove it if None; return whether anything changed."""
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
        """Return the quotas of a namespace."""
        return self._by_namespace.get(namespace, {}).values()


JOB_USAGE: dict[str, Fraction] = {"count/jobs.batch": Fraction(1)}
"""Usage of a Job."""


@lru_cache(maxsize=1024)
def pod_usage(
    gpus: int, gpu_resource: str, cpu: str, memory: str, further: tuple[tuple[str, str], ...] = ()
) -> Mapping[str, Fraction]:
    """Return the usage of one trainer pod by the resource names of quotas; cached, so equal pods share one mapping.

    Args:
        gpus: GPUs of the pod.
        gpu_resource: Extended resource of the GPUs.
        cpu: Cores, a quantity; request and limit are the same.
        memory: Bytes, a quantity; request and limit are the same.
        further: Names and quantities of further resources, for example ephemeral-storage.
    """
    usage = {"pods": Fraction(1), "count/pods": Fraction(1)}
    for key, amount in (("cpu", exact(cpu)), ("memory", exact(memory)), *((key, exact(text)) for key, text in further)):
        usage |= {key: amount, f"requests.{key}": amount, f"limits.{key}": amount}
    return usage | ({f"requests.{gpu_resource}": Fraction(gpus)} if gpus else {})


@lru_cache(maxsize=1024)
def created_usage(*, service: bool, claim_size: str | None, storage_class: str | None) -> Mapping[str, Fraction]:
    """Return the usage of the objects that are created with a Job, and of the Job; cached like `pod_usage`.

    Args:
        service: Whether a Service is created.
        claim_size: Size of the claim that is created, a quantity; None without one.
        storage_class: Its storage class; None for the cluster's default, whose own limits are not counted: the API
            server enters the class only when it creates the claim.
    """
    one, usage = Fraction(1), JOB_USAGE | dict.fromkeys(("configmaps", "count/configmaps"), Fraction(1))
    if service:
        usage |= dict.fromkeys(("services", "count/services"), one)
    if claim_size is None:
        return usage
    claims, storage = "persistentvolumeclaims", "requests.storage"
    usage |= {claims: one, f"count/{claims}": one, storage: exact(claim_size)}
    if storage_class is not None:
        usage |= {_CLASS.format(storage_class, key): usage[key] for key in (claims, storage)}
    return usage


class Headroom:
    """Headroom of all quotas during one cycle.

    Args:
        quotas: The quotas as their controller last published them.
        admitted: Every admitted job; the usage of its pods that do not exist yet is reserved.
    """

    def __init__(self, quotas: Quotas, admitted: Iterable[Admitted]) -> None:
        self._quotas = quotas
        self._reserved: dict[str, defaultdict[str, Fraction]] = {}
        for job in admitted:
            if not job.releasing:
                self._reserve(job.request, job.missing_pods)

    def refusal(self, request: Request, pods: int | None = None) -> Reason | None:
        """Return the reason why a quota refuses pods of a job; None if there is headroom.

        Args:
            request: The job's request.
            pods: Number of pods; None for the whole gang.
        """
        for quota in self._quotas.of(request.namespace):
            for key, hard in quota.hard.items():
                need = _need(request, key, request.nodes if pods is None else pods)
                used = quota.used.get(key, Fraction(0)) + self._reserved_in(request.namespace)[key]
                if need and used + need > hard:
                    return reasons.quota_exceeded(request.namespace, quota.name, key, hard=hard, used=used, need=need)
        return None

    def take(self, request: Request) -> None:
        """Reserve the usage of a newly admitted gang."""
        self._reserve(request, request.nodes)

    def _reserve(self, request: Request, pods: int) -> None:
        keys = {key for quota in self._quotas.of(request.namespace) for key in quota.hard}
        for key in keys:
            self._reserved_in(request.namespace)[key] += _need(request, key, pods)

    def _reserved_in(self, namespace: str) -> defaultdict[str, Fraction]:
        return self._reserved.setdefault(namespace, defaultdict(Fraction))


def _need(request: Request, key: str, pods: int) -> Fraction:
    nothing = Fraction(0)
    return request.pod_usage.get(key, nothing) * pods + request.created_usage.get(key, nothing)
