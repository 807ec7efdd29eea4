"""Limits of time and of restarts without progress."""

from __future__ import annotations

from datetime import datetime

from trainyard_crds.trainingjob_status import Phase
from trainyard_operator.reconcile.fields import condition, format_time, parse_time
from trainyard_operator.reconcile.plan import Need
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policies.completion import failed
from trainyard_operator.trainingjob.policy_context import PolicyContext
from trainyard_operator.trainingjob.spec import Spec

RESTARTS_WITHOUT_PROGRESS = 5
"""Free restarts in a row without a new step after which a job fails."""


def enforce_limits(context: PolicyContext) -> Decision | Need | None:
    """Fail a job that exceeded its running time or restarted too often without progress; None for others."""
    if context.history.counts.restarts_without_progress >= RESTARTS_WITHOUT_PROGRESS:
        return _no_progress(context)
    left = active_seconds_left(context)
    return None if left is None or left > 0 else _exceeded(context)


def active_seconds_left(context: PolicyContext) -> float | None:
    """Return the running time the job still has, in seconds; None when it has no limit."""
    limit = context.spec.active_deadline_seconds
    return None if limit is None else float(limit) - context.history.running_seconds(context.now)


def seconds_starting(context: PolicyContext) -> float | None:
    """Return the seconds since the present start began; None while none is in progress."""
    began = _start_began(context)
    return None if began is None else (context.now - began).total_seconds()


def seconds_of_all_starts(context: PolicyContext) -> float:
    """Return the seconds that all starts since the job last ran took, failed ones included."""
    return seconds_of_failed_starts(context) + (seconds_starting(context) or 0.0)


def seconds_of_failed_starts(context: PolicyContext) -> float:
    """Return the seconds that failed starts took."""
    return float(context.observed.failed_starts.get("seconds", 0))


def start_deadline_message(spec: Spec, cause: str) -> str:
    """Return the message of a job whose container did not run in time."""
    return f"The container did not run within {spec.start_deadline_seconds} s (spec.startDeadlineSeconds). {cause}"


def _no_progress(context: PolicyContext) -> Decision | Need:
    last = context.history.last or {}
    text = (
        f"The job was restarted {RESTARTS_WITHOUT_PROGRESS} times in a row without a new training step. "
        f"Last: {last.get('message', '')} Save more often (spec.checkpoints.everySteps, everyMinutes), or give "
        "it nodes that are not taken away."
    )
    return failed(context.observed, context.history, "NoProgress", text)


def _exceeded(context: PolicyContext) -> Decision:
    limit = context.spec.active_deadline_seconds
    if not context.is_idle:
        text = f"The job ran for {limit} s (spec.activeDeadlineSeconds); it saves a checkpoint and stops."
        return Decision(phase=Phase.STOPPING, reason="DeadlineExceeded", message=text, suspend=True)
    text = f"The job ran for {limit} s without finishing (spec.activeDeadlineSeconds). Its checkpoints remain."
    end = context.history.ending
    termination = end.termination if end else None
    return Decision(phase=Phase.FAILED, reason="DeadlineExceeded", message=text, termination=termination)


def _start_began(context: PolicyContext) -> datetime | None:
    """Return when the present start began: the Job's creation, its resumption or the end of the attempt before."""
    if context.child is None:
        admitted = condition(context.observed.job, "Admitted")
        return parse_time(admitted["lastTransitionTime"]) if admitted and admitted["status"] == "True" else None
    moments = [context.child["metadata"]["creationTimestamp"]]
    suspended = condition(context.child, "Suspended")
    if suspended is not None:
        if suspended["status"] == "True":
            return None  # the Job controller has not resumed it yet
        moments.append(suspended["lastTransitionTime"])
    if context.admission.elastic:
        moments += _got_nodes(context)
    if context.history.gang is not None:
        moments += _gang_stopped(context)
    elif context.history.last is not None and "finishedAt" in context.history.last:
        moments.append(context.history.last["finishedAt"])
    return max(parse_time(moment) for moment in moments)


def _got_nodes(context: PolicyContext) -> list[str]:
    """Return when the pods got their nodes, which an autoscaler may have had to create."""
    scheduled = (condition(pod, "PodScheduled") for pod in context.observed.pods)
    return [found["lastTransitionTime"] for found in scheduled if found is not None and found["status"] == "True"]


def _gang_stopped(context: PolicyContext) -> list[str]:
    """Return when a gang last ran: its first pod may end and restart while it waits for the others."""
    running = condition(context.observed.job, "Running")
    if running is None:
        return []
    return [running["lastTransitionTime"] if running["status"] == "False" else format_time(context.now)]
