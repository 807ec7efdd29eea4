"""Inputs of the queue: waiting requests and admitted jobs, and the order of the requests."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from typing import NamedTuple

from trainyard_operator.queue.pool import Pool


class Basis(StrEnum):
    """What an estimate is based on, the most reliable first."""

    PROGRESS = "progress"
    HISTORY = "history"
    DEADLINE = "deadline"


class Estimate(NamedTuple):
    """A duration in seconds, and what it is based on."""

    seconds: float
    basis: Basis


@dataclass(frozen=True, kw_only=True)
class Request:
    """A job that waits for GPUs.

    Attributes:
        uid: UID of the object.
        namespace: Its namespace.
        pool: The GPU pool it uses.
        gpus: GPUs of each pod.
        nodes: Pods of its gang, which start together or not at all.
        priority: 0 to 10; higher starts first.
        enqueued_at: When the queue first observed it. Preemption and failed starts do not change it.
        time_limit: Longest run in seconds; None without a limit.
        expected_run: Expected duration of its run; None if unknown.
        not_before: End of its backoff after a failed start; meanwhile it blocks no other job.
        backoff_cause: Why that start failed, in a sentence.
        pod_usage: Usage of one pod by the resource names of ResourceQuotas.
        created_usage: Usage of the objects that have yet to be created for it, in the same way: claim, Job and others.
        has_job: Whether its child Job exists.
        preemptible: Whether a request of higher priority may take its GPUs once it is admitted.
    """

    uid: str
    namespace: str
    pool: Pool
    gpus: int
    nodes: int = 1
    priority: int = 5
    enqueued_at: datetime
    time_limit: float | None = None
    expected_run: Estimate | None = None
    not_before: datetime | None = None
    backoff_cause: str = "Its last start failed."
    pod_usage: Mapping[str, Fraction] = field(default_factory=dict)
    created_usage: Mapping[str, Fraction] = field(default_factory=dict)
    has_job: bool = False
    preemptible: bool = True

    @property
    def total(self) -> int:
        """GPUs of the whole gang."""
        return self.gpus * self.nodes

    @functools.cached_property
    def owner(self) -> str:
        """Namespace and UID, which identify its pods."""
        return f"{self.namespace}/{self.uid}"

    @functools.cached_property
    def order(self) -> tuple[int, datetime, str]:
        """Sort key: priority, then first come, first served; the UID only breaks ties."""
        return (-self.priority, self.enqueued_at, self.uid)


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """A job that was admitted and still holds its GPUs.

    Attributes:
        request: Its request.
        placement: The node planned for each pod at admission.
        admitted_at: When it was admitted.
        remaining: Expected remaining run; None if unknown.
        time_limit: Seconds until it ends at the latest; None without a limit.
        releasing: Whether it will free its GPUs soon: stopping, suspended, preempted or finished.
        succeeded_pods: Pods that succeeded. They are not replaced, so their GPUs are free at once; the Job controller
            reports completion about a second later.
        live_pods: Pods that exist and have not ended, bound or not.
    """

    request: Request
    placement: tuple[str, ...]
    admitted_at: datetime
    remaining: Estimate | None = None
    time_limit: float | None = None
    releasing: bool = False
    succeeded_pods: int = 0
    live_pods: int = 0

    @property
    def missing_pods(self) -> int:
        """Pods of the gang that do not exist yet."""
        return max(0, self.request.nodes - self.live_pods - self.succeeded_pods)


def in_order(requests: Iterable[Request]) -> list[Request]:
    """Sort requests into admission order."""
    return sorted(requests, key=lambda request: request.order)
