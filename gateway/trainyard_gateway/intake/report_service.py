"""Decides about one report: who may send it, whether it is newer than the last, what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainyard_crds.constants import child_name, progress_audience
from trainyard_gateway.errors import Refusal
from trainyard_gateway.intake.report_schema import Update
from trainyard_gateway.intake.token_review import Caller, Tokens, unauthorized
from trainyard_gateway.intake.write_scheduler import WriteSchedule
from trainyard_gateway.jobs import Job, JobCache, JobKey

_RETRY_SECONDS = 2


@dataclass(frozen=True)
class Pending:
    """A share of the status that waits to be written.

    Attributes:
        job: The job's name.
        uid: UID of the object it belongs to.
        pod_uid: The pod that reported it.
        share: The parts of the status (JSON).
    """

    job: JobKey
    uid: str
    pod_uid: str
    share: Mapping[str, Any]


Schedule = WriteSchedule[str, Pending]


def authorize(job: Job, caller: Caller) -> None:
    """Pass when the caller is the pod that runs the job now.

    Raises:
        Refusal: 403, another namespace's, job's or attempt's pod; 410, the job is finished; 503, the operator has not
            recorded the pod yet.
    """
    if caller.namespace != job.key.namespace:
        raise _forbidden(
            "ForeignNamespace", f"the token belongs to namespace {caller.namespace}; reports stay in theirs"
        )
    if not caller.pod.startswith(f"{child_name(job.key.name, job.uid)}-"):
        raise _forbidden("ForeignPod", f"pod {caller.pod} is no pod of TrainingJob {job.key}")
    if job.finished:
        raise _ended(job.key)
    known = any(attempt.pod_uid == caller.pod_uid for attempt in job.attempts)
    if known and caller.pod_uid != job.current_pod():
        raise _forbidden("AttemptEnded", f"the attempt of pod {caller.pod} has ended; only the current pod may report")
    if not known:
        message = f"pod {caller.pod} is not recorded in the job's status yet; send the newest report again"
        raise Refusal(503, "AttemptUnknown", message, retry_after=_RETRY_SECONDS)


@dataclass(slots=True)
class _Last:
    pod_uid: str
    partial: bool
    order: float | None
    share: Mapping[str, Any]


class Intake:
    """Takes reports and hands them to the write schedule.

    Args:
        jobs: The TrainingJobs.
        tokens: Who knows the callers.
        schedule: Where accepted reports wait to be written.
    """

    def __init__(self, jobs: JobCache, tokens: Tokens, schedule: Schedule) -> None:
        self._jobs, self._tokens, self._schedule = jobs, tokens, schedule
        self._last: dict[str, _Last] = {}
        jobs.on_end(self.forget)

    async def admit(self, key: JobKey, token: str) -> tuple[Job, Caller]:
        """Find out who calls and whether that pod may report for this job.

        Raises:
            Refusal: it may not, or not now.
        """
        if not token:
            message = (
                "there is no token; send 'Authorization: Bearer' with the token file mounted into the training pod"
            )
            raise Refusal(401, "TokenMissing", message)
        job = self._jobs.get(key)
        if job is None:
            raise unauthorized()
        caller = await self._tokens.caller(token, progress_audience(job.uid))
        authorize(job, caller)
        return job, caller

    def accept(self, job: Job, caller: Caller, update: Update) -> None:
        """Make an update the newest of its job; the same one again changes nothing.

        Raises:
            Refusal: 409, a newer one was accepted before; 410, the job ended while the body was on its way.
        """
        current = self._jobs.get(job.key)
        if current is None or current.uid != job.uid or current.finished:
            raise _ended(job.key)  # it is forgotten already; what came back now would be kept for ever
        last = self._last.get(job.uid)
        if last is not None and last.pod_uid == caller.pod_uid and last.partial == update.partial:
            if update.order is not None and last.order is not None and update.order < last.order:
                message = f"a newer report of this pod was accepted before ({update.order:.16g} < {last.order:.16g})"
                raise Refusal(409, "OutOfDate", f"{message}; send only the newest")
            if update.order is not None and update.order == last.order:
                return
        before = last.share if last is not None and last.pod_uid == caller.pod_uid else job.share
        share = update.share(before)
        self._last[job.uid] = _Last(caller.pod_uid, update.partial, update.order, share)
        pending = Pending(job.key, job.uid, caller.pod_uid, share)
        written = current.share.get("progress", {}).get("stage")
        self._schedule.offer(job.uid, pending, share["progress"]["stage"], written=written)

    def forget(self, uid: str) -> None:
        """Forget a job that is gone or finished."""
        self._last.pop(uid, None)
        self._schedule.forget(uid)


def _ended(key: JobKey) -> Refusal:
    return Refusal(410, "JobFinished", f"TrainingJob {key} is finished; nothing more is written to its status")


def _forbidden(reason: str, message: str) -> Refusal:
    return Refusal(403, reason, message)
