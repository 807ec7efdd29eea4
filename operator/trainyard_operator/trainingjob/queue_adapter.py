"""Converts an observed TrainingJob into the queue's inputs: waiting, holding GPUs, or neither."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

from trainyard_crds.constants import ENQUEUED_ANNOTATION
from trainyard_kube.paths import Object
from trainyard_kube.resource import Key
from trainyard_operator.admission.candidate import Grant, Published, QueueEntry, RunHistory
from trainyard_operator.admission.decision import Admission
from trainyard_operator.queue.models import Admitted, Basis, Estimate, Request
from trainyard_operator.queue.pool import Pool, pool_of
from trainyard_operator.queue.position import QueuePosition
from trainyard_operator.queue.quota import JOB_USAGE, created_usage, pod_usage
from trainyard_operator.queue.reasons import Reason
from trainyard_operator.reconcile.fields import condition, holds, parse_time, seconds_between
from trainyard_operator.trainingjob.conditions import is_final
from trainyard_operator.trainingjob.k8s_fields import container_state, job_finished, job_suspended, pod_ended
from trainyard_operator.trainingjob.kueue_adapter import kueue_admission
from trainyard_operator.trainingjob.model import Observed
from trainyard_operator.trainingjob.resources import job_key
from trainyard_operator.trainingjob.run_identity import is_restoring
from trainyard_operator.trainingjob.suspender import foreign_suspender


@dataclass(frozen=True)
class TrainingJobCandidate:
    """A TrainingJob as the queue sees it; implements `Candidate`.

    Attributes:
        observed: The TrainingJob and its children.
    """

    observed: Observed

    @property
    def key(self) -> Key:
        """Its key in the work queue."""
        metadata = self.observed.job["metadata"]
        return job_key(metadata["namespace"], metadata["name"])

    @property
    def uid(self) -> str:
        """Its UID."""
        return self.observed.uid

    @property
    def created(self) -> tuple[datetime, int]:
        """Creation time and resource version."""
        metadata = self.observed.job["metadata"]
        return parse_time(metadata["creationTimestamp"]), int(metadata.get("resourceVersion", 0))

    @property
    def enqueued_at(self) -> datetime | None:
        """Its queue time from the status, else from the child Job, which exists before the first status write."""
        annotations = (self.observed.child or {"metadata": {}})["metadata"].get("annotations") or {}
        recorded = self.queue_status.get("enqueuedAt") or annotations.get(ENQUEUED_ANNOTATION)
        return parse_time(recorded) if recorded else None

    @property
    def queue_status(self) -> Object:
        """Its `status.queue`."""
        return self.observed.queue_status

    @property
    def published(self) -> Published | None:
        """What its status reports while it waits, if condition and `status.queue` agree."""
        queue, admitted = self.queue_status, condition(self.observed.job, "Admitted")
        if admitted is None or admitted["reason"] != queue.get("reason"):
            return None
        return Published(
            reason=Reason(admitted["reason"], admitted["message"]),
            position=QueuePosition(queue["position"], queue["length"]) if "position" in queue else None,
            start=parse_time(queue["estimatedStartTime"]) if "estimatedStartTime" in queue else None,
            basis=Basis(queue["estimateBasis"]) if "estimateBasis" in queue else None,
        )

    @property
    def pool(self) -> Pool:
        """The GPU pool it uses."""
        return pool_of(self.observed.spec.resources)

    @property
    def summary(self) -> Object:
        """GPUs, nodes and priority, for the debug endpoint."""
        spec = self.observed.spec
        return {"gpus": spec.resources.gpus, "nodes": spec.resources.nodes, "priority": spec.queue.priority}

    @property
    def job_uid(self) -> str | None:
        """UID of its training Job; None without one."""
        child = self.observed.child
        return None if child is None else str(child["metadata"].get("uid", ""))

    @property
    def is_wanted(self) -> bool:
        """Whether it is to run, now or later."""
        spec = self.observed.spec
        deleted = "deletionTimestamp" in self.observed.job["metadata"]
        held = spec.suspend or spec.stop is not None or foreign_suspender(self.observed) is not None
        return not (deleted or self.is_final or held or is_restoring(self.observed))

    @property
    def is_running(self) -> bool:
        """Whether its training Job exists and is not suspended."""
        return self.observed.child is not None and not job_suspended(self.observed.child)

    @property
    def is_final(self) -> bool:
        """Whether its status has a final phase."""
        return is_final(self.observed)

    def completed_run(self, now: datetime) -> float | None:
        """Return how long it ran, in seconds, once its training Job is complete."""
        return seconds_run(self.observed, now) if holds(self.observed.child, "Complete") else None

    def entry(
        self, *, enqueued_at: datetime, now: datetime, grant: Grant | None, preempted: bool, history: RunHistory
    ) -> QueueEntry:
        """Return its part in an admission cycle of the builtin queue.

        Args:
            enqueued_at: When the queue first observed it.
            now: The time.
            grant: Its admission by this process, if any.
            preempted: Whether the queue preempted it.
            history: Durations of earlier runs.
        """
        observed = self.observed
        request = _request(observed, enqueued_at, now, history)
        finished = observed.child is not None and job_finished(observed.child)
        startable = self.is_wanted and not finished
        if self.is_running and not finished:
            releasing = preempted or not self.is_wanted
            return QueueEntry(holding=_admitted(observed, request, grant, now, releasing=releasing))
        if startable and _is_granted(grant, request, now):
            return QueueEntry(holding=_admitted(observed, request, grant, now, releasing=False))
        if _has_live_pods(observed):
            return QueueEntry(holding=_admitted(observed, request, grant, now, releasing=True))
        return QueueEntry(waiting=request) if startable else QueueEntry()

    def kueue_admission(
        self,
        *,
        default_queue: str | None,
        problem: str | None,
        workload: Object | None,
        position: QueuePosition | None,
        now: datetime,
    ) -> Admission:
        """Return Kueue's decision about it.

        Args:
            default_queue: LocalQueue of jobs that name none.
            problem: Why Kueue cannot be read, a sentence; None while it can.
            workload: The Workload of its training Job.
            position: Its position in Kueue's queue, if known.
            now: The time.
        """
        return kueue_admission(
            self.observed, default_queue=default_queue, problem=problem, workload=workload, position=position, now=now
        )


def seconds_run(observed: Observed, now: datetime) -> float:
    """Return how long all attempts of a job have run, in seconds."""
    return _recorded_seconds(observed) + _elapsed(observed, now)


def _is_granted(grant: Grant | None, request: Request, now: datetime) -> bool:
    """Return whether a pending grant is valid: it expires when its Job is refused, until the backoff ends."""
    if grant is None or not grant.pending:
        return False
    return request.not_before is None or request.not_before <= now


def _has_live_pods(observed: Observed) -> bool:
    status = (observed.child or {}).get("status") or {}
    job_has_pods = bool(status.get("active") or status.get("terminating"))
    return job_has_pods or any(not pod_ended(pod) for pod in observed.pods)


def _request(observed: Observed, enqueued_at: datetime, now: datetime, history: RunHistory) -> Request:
    resources = observed.spec.resources
    pool = pool_of(resources)
    return Request(
        uid=observed.uid,
        namespace=observed.job["metadata"]["namespace"],
        pool=pool,
        gpus=resources.gpus,
        nodes=resources.nodes,
        priority=observed.spec.queue.priority,
        enqueued_at=enqueued_at,
        time_limit=_time_limit(observed),
        expected_run=_reported_remaining(observed) or history(pool, _elapsed(observed, now)),
        pod_usage=pod_usage(
            resources.gpus, resources.gpu_resource, resources.cpu_limit, resources.memory_limit, resources.further
        ),
        created_usage=_created_usage(observed),
        has_job=observed.child is not None,
        **_backoff(observed),
    )


def _created_usage(observed: Observed) -> Mapping[str, Fraction]:
    """Return the quota usage of what has yet to be created; `runUri` is in the status once the claim exists."""
    if observed.child is not None:
        return {}
    if "runUri" in observed.status:
        return JOB_USAGE
    storage = observed.spec.storage
    return created_usage(
        service=observed.spec.resources.nodes > 1,
        claim_size=None if storage.claim_name else storage.claim_size,
        storage_class=storage.storage_class_name,
    )


def _backoff(observed: Observed) -> dict[str, Any]:
    """Return end and cause of the backoff after failed starts, as fields of `Request`."""
    failed = observed.failed_starts
    return {"not_before": parse_time(failed["notBefore"]), "backoff_cause": failed["message"]} if failed else {}


def _time_limit(observed: Observed) -> float | None:
    """Return the running time left under activeDeadlineSeconds, plus the grace period, in seconds."""
    limit = observed.spec.active_deadline_seconds
    if limit is None:
        return None
    return max(0.0, float(limit) - _recorded_seconds(observed)) + observed.spec.checkpoints.grace_period_seconds


def _recorded_seconds(observed: Observed) -> float:
    return float((observed.status.get("attemptCounts") or {}).get("runningSeconds", 0))


def _reported_remaining(observed: Observed) -> Estimate | None:
    """Return the remaining time that the trainer reports."""
    seconds = (observed.status.get("progress") or {}).get("remainingSeconds")
    return None if seconds is None else Estimate(float(seconds), Basis.PROGRESS)


def _admitted(observed: Observed, request: Request, grant: Grant | None, now: datetime, *, releasing: bool) -> Admitted:
    grace, elapsed = float(observed.spec.checkpoints.grace_period_seconds), _elapsed(observed, now)
    limit = None if request.time_limit is None else max(grace, request.time_limit - elapsed)
    remaining = _remaining(observed, request, elapsed, now)
    if remaining is None and limit is not None:
        remaining = Estimate(limit, Basis.DEADLINE)
    if releasing:
        limit, remaining = grace, Estimate(grace, Basis.PROGRESS)
    return Admitted(
        request=request,
        placement=grant.nodes if grant else (),
        admitted_at=grant.admitted_at if grant else _job_created(observed, now),
        remaining=remaining,
        time_limit=limit,
        releasing=releasing,
        live_pods=sum(not pod_ended(pod) for pod in observed.pods),
        succeeded_pods=sum(pod.get("status", {}).get("phase") == "Succeeded" for pod in observed.pods),
    )


def _remaining(observed: Observed, request: Request, elapsed: float, now: datetime) -> Estimate | None:
    """Return the expected remaining run, less the time since that expectation was made."""
    expected = request.expected_run
    if expected is None:
        return None
    reported_at = str((observed.status.get("progress") or {}).get("updatedAt", ""))
    is_reported = expected.basis is Basis.PROGRESS and bool(reported_at)
    age = seconds_between(reported_at, now.isoformat()) if is_reported else elapsed
    return expected._replace(seconds=max(0.0, expected.seconds - age))


def _elapsed(observed: Observed, now: datetime) -> float:
    """Return how long the current attempt has run, in seconds, from its pods: the status lags behind under load."""
    attempt = (observed.status.get("attempts") or [{}])[-1]
    if "finishedAt" in attempt:
        return 0.0
    states = [container_state(pod) for pod in observed.pods if _is_of_attempt(pod, attempt)]
    runs: list[Object] = [state.get("running") or state.get("terminated") or {} for state in states]
    started, ended = _times("startedAt", [attempt, *runs]), _times("finishedAt", runs)
    if not started:
        return 0.0
    all_ended = bool(ended) and len(ended) == len(states)
    end = max(ended) if all_ended else now
    return max(0.0, (end - min(started)).total_seconds())


def _times(field: str, entries: list[Object]) -> list[datetime]:
    return [parse_time(entry[field]) for entry in entries if entry.get(field)]


def _is_of_attempt(pod: Object, attempt: Object) -> bool:
    return "podUID" not in attempt or pod["metadata"].get("uid") == attempt["podUID"]


def _job_created(observed: Observed, now: datetime) -> datetime:
    """Return when the training Job was created, as the admission time of a job that an earlier process admitted."""
    if observed.child is None:
        return now
    return parse_time(observed.child["metadata"]["creationTimestamp"])
