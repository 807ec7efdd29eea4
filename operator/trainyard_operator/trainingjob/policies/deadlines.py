"""Limits in time and in fruitless restarts."""

from __future__ import annotations

from datetime import datetime

from trainyard_crds.trainingjob_status import Phase
from trainyard_operator.reconcile.fields import condition, format_time, parse_time
from trainyard_operator.reconcile.plan import Need
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policies.completion import failed
from trainyard_operator.trainingjob.policy_context import Case
from trainyard_operator.trainingjob.spec import Spec

FRUITLESS_RESTARTS = 5
"""Free restarts in a row without a new step after which a job fails."""


def limits(case: Case) -> Decision | Need | None:
    """The failure that running time or fruitless restarts bring; None when no limit is reached."""
    if case.history.counts.restarts_without_progress >= FRUITLESS_RESTARTS:
        return _no_progress(case)
    left = active_seconds_left(case)
    return None if left is None or left > 0 else _exceeded(case)


def active_seconds_left(case: Case) -> float | None:
    """Seconds of running time the job still has; None when it has no limit."""
    limit = case.spec.active_deadline_seconds
    return None if limit is None else float(limit) - case.history.running_seconds(case.now)


def start_seconds(case: Case) -> float | None:
    """Seconds the present start has taken; None while the clock does not tick."""
    began = _start_began(case)
    return None if began is None else (case.now - began).total_seconds()


def tried_seconds(case: Case) -> float:
    """Seconds that all starts since the job last ran have taken, those that came to nothing included."""
    return failed_seconds(case) + (start_seconds(case) or 0.0)


def failed_seconds(case: Case) -> float:
    """Seconds that starts that came to nothing took."""
    failed = (case.observed.status.get("queue") or {}).get("failedStarts") or {}
    return float(failed.get("seconds", 0))


def too_late(spec: Spec, cause: str) -> str:
    """What is said of a container that did not run in time, and of what it waited for."""
    return f"The container did not run within {spec.start_deadline_seconds} s (spec.startDeadlineSeconds). {cause}"


def _no_progress(case: Case) -> Decision | Need:
    last = case.history.last or {}
    text = (
        f"The job was restarted {FRUITLESS_RESTARTS} times in a row without a new training step. "
        f"Last: {last.get('message', '')} Save more often (spec.checkpoints.everySteps, everyMinutes), or give "
        "it nodes that are not taken away."
    )
    return failed(case.observed, case.history, "NoProgress", text)


def _exceeded(case: Case) -> Decision:
    limit = case.spec.active_deadline_seconds
    if not case.idle:
        text = f"The job ran for {limit} s (spec.activeDeadlineSeconds); it saves a checkpoint and stops."
        return Decision(phase=Phase.STOPPING, reason="DeadlineExceeded", message=text, suspend=True)
    text = f"The job ran for {limit} s without finishing (spec.activeDeadlineSeconds). Its checkpoints remain."
    end = case.history.ending
    termination = end.termination if end else None
    return Decision(phase=Phase.FAILED, reason="DeadlineExceeded", message=text, termination=termination)


def _start_began(case: Case) -> datetime | None:
    """When the present start began: the Job's creation, its resumption or the end of the attempt before."""
    if case.child is None:
        tried = condition(case.observed.job, "Admitted")
        return parse_time(tried["lastTransitionTime"]) if tried and tried["status"] == "True" else None
    moments = [case.child["metadata"]["creationTimestamp"]]
    suspended = condition(case.child, "Suspended")
    if suspended is not None:
        if suspended["status"] == "True":
            return None  # the Job controller has not resumed it yet
        moments.append(suspended["lastTransitionTime"])
    if case.history.group is not None:
        moments += _stopped_running(case)
    elif case.history.last is not None and "finishedAt" in case.history.last:
        moments.append(case.history.last["finishedAt"])
    return max(parse_time(moment) for moment in moments)


def _stopped_running(case: Case) -> list[str]:
    """When a group last ran: a first pod that waits for the others in vain ends and starts again meanwhile."""
    ran = condition(case.observed.job, "Running")
    if ran is None:
        return []
    return [ran["lastTransitionTime"] if ran["status"] == "False" else format_time(case.now)]
