"""The start timeout: a job whose pods get no nodes in time releases its GPUs and starts again later, at its old place.

It covers pods without a node, which other jobs can provide by ending, or could use themselves. A pod that has its node
but waits for its image, a Secret or a volume keeps its GPUs until spec.startDeadlineSeconds.
"""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from trainyard_crds.trainingjob_status import Phase
from trainyard_kube.paths import Object
from trainyard_operator.queue import reasons
from trainyard_operator.queue.backoff import backoff
from trainyard_operator.reconcile.fields import condition, format_time, owned_by, parse_time
from trainyard_operator.reconcile.plan import Need
from trainyard_operator.trainingjob.k8s_fields import is_being_deleted, job_suspended, pod_ended, pod_phase
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policies.deadlines import seconds_of_failed_starts, seconds_starting
from trainyard_operator.trainingjob.policies.pending_reason import (
    is_restarting,
    no_pod_cause,
    no_pod_need,
    pod_pending_reason,
)
from trainyard_operator.trainingjob.policy_context import PolicyContext

_REASON = "NotPlaced"
_MESSAGE_LIMIT = 1000
_NO_NODE = "The pod got no node in time."
QUOTA_SECONDS = 30
"""Seconds of refusals by a ResourceQuota after which an admission is withdrawn; its controller needs a few to count."""


class _Unplaced(NamedTuple):
    """Seconds for which a job has lacked a node for one of its pods, and why, in a sentence."""

    seconds: float
    cause: str


def time_out_start(context: PolicyContext) -> Decision | Need | None:
    """Record a start whose pods got no node in time, then suspend its Job; None for others.

    The record is written first: a kill in between neither loses it nor counts a start twice, and the queue knows the
    backoff before it sees that the job waits.
    """
    if context.child is None or (job_suspended(context.child) and context.is_idle):
        return _withdraw(context)
    if _is_recorded(context):
        return _suspend_unplaced(context)
    timeout, found = context.admission.start_seconds, None if context.admission.preempted else _unplaced(context)
    if timeout is None or found is None or found.seconds < timeout:
        return None
    need = no_pod_need(context)
    if need is not None:
        return need
    tried = seconds_of_failed_starts(context) + (0.0 if context.admission.elastic else found.seconds)
    if tried >= context.spec.start_deadline_seconds:
        return None  # spec.startDeadlineSeconds ends it
    return _decision(_failed_start(context, found.cause, int(tried)), suspend=None)


def waits_for_new_node(context: PolicyContext) -> bool:
    """Return whether a pod has no node yet that an autoscaler may have to create."""
    return context.admission.elastic and context.child is not None and _unplaced(context) is not None


def seconds_to_timeout(context: PolicyContext) -> float | None:
    """Return the seconds until a job releases its GPUs; None where nothing indicates that it will."""
    timeout, found = context.admission.start_seconds, None if context.child is None else _unplaced(context)
    return None if timeout is None or found is None else max(0.0, timeout - found.seconds)


def _withdraw(context: PolicyContext) -> Decision | None:
    """Withdraw the admission of a job whose Job the API server has refused to create, or to resume, for too long."""
    if context.admission.handoff is not None:
        return None
    recorded = context.observed.failed_starts
    if recorded and parse_time(recorded["notBefore"]) > context.now:
        # The queue has not withdrawn the admission yet.
        return Decision(phase=None) if context.admission.admitted else None
    refused, waited = _refused(context), _seconds_admitted(context)
    if refused is None or waited is None or waited < refused.timeout:
        return None
    tried = seconds_of_failed_starts(context) + (0.0 if refused.may_pass else waited)
    if tried >= context.spec.start_deadline_seconds:
        return None
    failed = _failed_start(context, refused.cause, int(tried))
    waits = reasons.backing_off(parse_time(failed["notBefore"]), failed["message"])
    return Decision(phase=Phase.QUEUED, reason=waits.code, message=waits.message, failed_starts=failed)


def _seconds_admitted(context: PolicyContext) -> float | None:
    """Return the seconds since the status reports the admission; None while it does not."""
    admitted = condition(context.observed.job, "Admitted")
    if admitted is None or admitted["status"] != "True":
        return None
    return (context.now - parse_time(admitted["lastTransitionTime"])).total_seconds()


class _Refused(NamedTuple):
    """Why a Job was refused, after how many seconds its admission is withdrawn, and `Refusal.may_pass`."""

    cause: str
    timeout: float
    may_pass: bool


def _refused(context: PolicyContext) -> _Refused | None:
    refusal, timeout = context.observed.refusal, context.admission.start_seconds
    if context.child is not None and context.observed.blocked and timeout is not None:
        return _Refused(context.observed.blocked, timeout, may_pass=True)
    if refusal is None or refusal.final:
        return None
    if refusal.reason == "QuotaExceeded":
        # The queue counts quotas and says what is missing, so the job need not hold anything meanwhile.
        timeout = min(QUOTA_SECONDS, timeout or QUOTA_SECONDS)
    return None if timeout is None else _Refused(refusal.message, timeout, refusal.may_pass)


def _is_recorded(context: PolicyContext) -> bool:
    """Return whether the present start is recorded as failed."""
    running = condition(context.observed.job, "Running")
    recorded = running is not None and running["reason"] == _REASON
    return recorded and context.observed.status.get("phase") == Phase.SUSPENDING


def _suspend_unplaced(context: PolicyContext) -> Decision | None:
    """Suspend a Job whose start was recorded as failed, unless its pods got their nodes after all."""
    assert context.child is not None
    failed = context.observed.failed_starts
    over = context.is_idle if job_suspended(context.child) else _unplaced(context) is None
    return None if over or not failed else _decision(failed, suspend=True)


def _failed_start(context: PolicyContext, cause: str, tried: int) -> Object:
    """Return `status.queue.failedStarts` with one more failed start."""
    count = int(context.observed.failed_starts.get("count", 0)) + 1
    return {
        "count": count,
        "seconds": tried,
        "message": f"{cause[:_MESSAGE_LIMIT].rstrip('.')}.",
        "notBefore": format_time(context.now + timedelta(seconds=backoff(count))),
    }


def _decision(failed: Object, *, suspend: bool | None) -> Decision:
    again = parse_time(failed["notBefore"])
    text = (
        f"{failed['message']} The job releases its GPUs, keeps its place in the queue and may start again at "
        f"{again:%H:%M:%S} UTC."
    )
    return Decision(
        phase=Phase.SUSPENDING,
        reason=_REASON,
        message=text,
        suspend=suspend,
        failed_starts=failed,
        requeue_after=None if suspend else 0.0,
    )


def _unplaced(context: PolicyContext) -> _Unplaced | None:
    """Return what a job lacks; None where every pod has its node, and between two attempts."""
    assert context.child is not None
    own = [pod for pod in context.observed.pods if owned_by(pod, context.child["metadata"]["uid"])]
    unbound = [pod for pod in own if _is_unbound(pod)]
    if unbound:
        since = min(parse_time(pod["metadata"]["creationTimestamp"]) for pod in unbound)
        _reason, cause = pod_pending_reason(unbound[0], context.admission.growth) or ("", _NO_NODE)
        return _Unplaced((context.now - since).total_seconds(), cause)
    present = sum(not pod_ended(pod) or pod_phase(pod) == "Succeeded" for pod in own)
    return None if present >= context.spec.resources.nodes else _missing_pods(context)


def _is_unbound(pod: Object) -> bool:
    """Return whether a pod waits for a node."""
    return not (pod_ended(pod) or pod["spec"].get("nodeName") or is_being_deleted(pod))


def _missing_pods(context: PolicyContext) -> _Unplaced | None:
    """Return since when pods are missing: since the start, because a pod that does not exist has no timestamp."""
    waited = seconds_starting(context)
    between_attempts = is_restarting(context) and not context.admission.quota
    if waited is None or between_attempts:
        return None
    _reason, cause = no_pod_cause(context)
    return _Unplaced(waited, context.admission.quota or cause)
