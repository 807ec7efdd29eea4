"""Authenticates the sender of a report, orders reports and hands them to the write scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainyard_crds.constants import child_name, progress_audience
from trainyard_gateway.intake.errors import ReportRejectedError
from trainyard_gateway.intake.job_cache import Job, JobCache, JobKey
from trainyard_gateway.intake.report_schema import ReportUpdate
from trainyard_gateway.intake.token_review import PodIdentity, TokenReviewer, unauthorized
from trainyard_gateway.intake.write_scheduler import WriteScheduler

_RETRY_SECONDS = 2


@dataclass(frozen=True)
class PendingStatus:
    """Status fields that wait to be written.

    Attributes:
        job: Namespace and name of the TrainingJob.
        uid: UID of the TrainingJob.
        pod_uid: UID of the pod that reported them.
        fields: The status fields owned by the gateway (JSON).
    """

    job: JobKey
    uid: str
    pod_uid: str
    fields: Mapping[str, Any]


StatusScheduler = WriteScheduler[str, PendingStatus]
"""Pending status writes by UID of the TrainingJob."""


def authorize(job: Job, pod: PodIdentity) -> None:
    """Check that the pod runs the current attempt of the job.

    Raises:
        ReportRejectedError: 403, a pod of another namespace, job or attempt; 410, the job is finished; 503, the
            operator has not recorded the pod yet.
    """
    if pod.namespace != job.key.namespace:
        message = (
            f"the token belongs to namespace {pod.namespace}; it may report for TrainingJobs of that namespace only"
        )
        raise _forbidden("ForeignNamespace", message)
    if not pod.name.startswith(f"{child_name(job.key.name, job.uid)}-"):
        raise _forbidden("ForeignPod", f"pod {pod.name} does not belong to TrainingJob {job.key}")
    if job.finished:
        raise _finished(job.key)
    known = any(attempt.pod_uid == pod.uid for attempt in job.attempts)
    if known and pod.uid != job.current_pod():
        raise _forbidden("AttemptEnded", f"the attempt of pod {pod.name} has ended; only the current pod may report")
    if not known:
        message = f"pod {pod.name} is not recorded in the job's status yet; send the newest report again"
        raise ReportRejectedError(503, "AttemptUnknown", message, retry_after=_RETRY_SECONDS)


@dataclass(slots=True)
class _LastReport:
    pod_uid: str
    partial: bool
    order: float | None
    fields: Mapping[str, Any]


class ReportService:
    """Accepts reports and hands them to the write scheduler.

    Args:
        jobs: The TrainingJobs.
        tokens: Reviews tokens.
        scheduler: Accepted reports that wait to be written.
    """

    def __init__(self, jobs: JobCache, tokens: TokenReviewer, scheduler: StatusScheduler) -> None:
        self._jobs, self._tokens, self._scheduler = jobs, tokens, scheduler
        self._last: dict[str, _LastReport] = {}
        jobs.on_end(self.forget)

    async def authenticate(self, key: JobKey, token: str) -> tuple[Job, PodIdentity]:
        """Return the job and the pod that holds the token, which may report for it.

        Raises:
            ReportRejectedError: the pod may not report, or not yet.
        """
        if not token:
            message = "the token is missing; send 'Authorization: Bearer' with the token file mounted into the pod"
            raise ReportRejectedError(401, "TokenMissing", message)
        job = self._jobs.get(key)
        if job is None:
            raise unauthorized()
        pod = await self._tokens.review(token, progress_audience(job.uid))
        authorize(job, pod)
        return job, pod

    def accept(self, job: Job, pod: PodIdentity, update: ReportUpdate) -> None:
        """Schedule an update in place of the job's previous one; a repeated update has no effect.

        Raises:
            ReportRejectedError: 409, a newer one was accepted before; 410, the job finished while the body was read.
        """
        current = self._jobs.get(job.key)
        if current is None or current.uid != job.uid or current.finished:
            raise _finished(job.key)  # its entries were removed already; new ones would never be removed
        last = self._last.get(job.uid)
        if last is not None and last.pod_uid == pod.uid and last.partial == update.partial:
            if update.order is not None and last.order is not None and update.order < last.order:
                message = f"a newer report of this pod was accepted before ({update.order:.16g} < {last.order:.16g})"
                raise ReportRejectedError(409, "OutOfDate", f"{message}; send only the newest")
            if update.order is not None and update.order == last.order:
                return
        previous = last.fields if last is not None and last.pod_uid == pod.uid else job.owned_status
        fields = update.status_fields(previous)
        self._last[job.uid] = _LastReport(pod.uid, update.partial, update.order, fields)
        pending = PendingStatus(job.key, job.uid, pod.uid, fields)
        written = current.owned_status.get("progress", {}).get("stage")
        self._scheduler.offer(job.uid, pending, fields["progress"]["stage"], written=written)

    def forget(self, uid: str) -> None:
        """Remove the state of a job that was deleted or has finished."""
        self._last.pop(uid, None)
        self._scheduler.forget(uid)


def _finished(key: JobKey) -> ReportRejectedError:
    return ReportRejectedError(410, "JobFinished", f"TrainingJob {key} is finished; reports are no longer accepted")


def _forbidden(reason: str, message: str) -> ReportRejectedError:
    return ReportRejectedError(403, reason, message)
