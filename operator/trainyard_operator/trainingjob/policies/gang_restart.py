"""A gang that lost a pod: all its pods start again, as often as spec.retry.limit allows."""

from __future__ import annotations

from datetime import datetime

from trainyard_crds.trainingjob_status import Phase
from trainyard_operator.reconcile.fields import condition, parse_time
from trainyard_operator.trainingjob.k8s_fields import job_suspended
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.pods.attempts import GROUP_RESTARTS, is_gang_restarting
from trainyard_operator.trainingjob.policies.pending_reason import GANG_STARTS_AGAIN
from trainyard_operator.trainingjob.policy_context import PolicyContext

HANG_SECONDS = 120
"""Seconds after which a pod counts as hung that continues without a peer; normally it exits at once."""


def restart_gang(context: PolicyContext) -> Decision | None:
    """Stop and start again a gang of which a pod hangs without its peers; None for others.

    The Job is suspended and resumed: its pods save if they can, and pods that were stopped count as no attempt.
    """
    gang, child = context.history.gang, context.child
    if gang is None or child is None or context.admission.preempted:
        return None
    if job_suspended(child):
        return _stopping(context) if is_gang_restarting(context.observed) and not context.is_idle else None
    if gang.broken is None or not gang.left or _seconds_to_hang(context, gang.broken) > 0:
        return None
    names = ", ".join(pod["metadata"]["name"] for pod in gang.left)
    late = f"{names} did not end within {HANG_SECONDS} s of it. All pods are stopped."
    text = f"{_break_cause(context, gang.broken)} {late} {GANG_STARTS_AGAIN}"
    return Decision(phase=Phase.STARTING, reason=GROUP_RESTARTS, message=text, suspend=True)


def report_broken_gang(context: PolicyContext) -> Decision | None:
    """Report a gang whose first pod continues without another; None for others."""
    gang = context.history.gang
    if gang is None or gang.broken is None or not gang.left:
        return None
    text = f"{_break_cause(context, gang.broken)} {GANG_STARTS_AGAIN}"
    seconds = max(0.0, _seconds_to_hang(context, gang.broken))
    return Decision(phase=Phase.STARTING, reason=GROUP_RESTARTS, message=text, requeue_after=seconds)


def _seconds_to_hang(context: PolicyContext, moment: datetime) -> float:
    """Return the seconds until pods that continue since a moment count as hung."""
    return HANG_SECONDS - (context.now - moment).total_seconds()


def _break_cause(context: PolicyContext, moment: datetime) -> str:
    """Return which end broke the gang, in a sentence."""
    history = context.history
    if history.fault is not None:
        return history.fault.sentence
    for entry in reversed(history.attempts):
        if "finishedAt" in entry and parse_time(entry["finishedAt"]) >= moment:
            return f"Attempt {entry['number']} ended: {entry['message']}"
    return "A pod of the group ended."


def _stopping(context: PolicyContext) -> Decision:
    """Keep the message with which the pods were stopped, until they ended."""
    known = condition(context.observed.job, "Running") or {}
    message = known.get("message") or GANG_STARTS_AGAIN
    return Decision(phase=Phase.STARTING, reason=GROUP_RESTARTS, message=message, suspend=True)
