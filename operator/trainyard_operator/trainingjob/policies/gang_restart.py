"""What becomes of a job on several nodes that lost a pod: all of them start again, as often as its retries allow."""

from __future__ import annotations

from datetime import datetime

from trainyard_crds.exitcodes import OnExit
from trainyard_crds.trainingjob_status import Phase
from trainyard_operator.reconcile.fields import condition, parse_time
from trainyard_operator.reconcile.plan import Need
from trainyard_operator.trainingjob.k8s_fields import job_suspended
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.pods.attempts import GROUP_RESTARTS, restarts
from trainyard_operator.trainingjob.policies.completion import failed, retries_text, words
from trainyard_operator.trainingjob.policies.pending_reason import GROUP_STARTS_AGAIN
from trainyard_operator.trainingjob.policy_context import Case

HANG_SECONDS = 120
"""Seconds for which a pod may go on without one that it had started with; mostly it ends by itself at once."""


def retries_used_up(case: Case) -> Decision | Need | None:
    """The end of a group that failed more often than spec.retry.limit allows; None for one that may start again.

    The Job counts for each index; it is kept over all of them here. Its pods end with the Job, which is deleted.
    """
    history, end = case.history, case.history.verdict
    if history.group is None or end is None or end.action is not OnExit.COUNT:
        return None
    if history.counts.failed <= case.spec.retry.limit:
        return None
    reason, text = words(history)
    return failed(case.observed, history, reason, f"{text} {retries_text(case.observed, history)}")


def regroup(case: Case) -> Decision | None:
    """A group of which a pod goes on without the others is stopped and started again as a whole; None for others.

    The Job is suspended and resumed: its pods save if they can, and those that were stopped count for nothing.
    """
    group, child = case.history.group, case.child
    if group is None or child is None or case.admission.preempted:
        return None
    if job_suspended(child):
        return _ending(case) if restarts(case.observed) and not case.idle else None
    if group.broken is None or not group.left or _hung_in(case, group.broken) > 0:
        return None
    names = ", ".join(pod["metadata"]["name"] for pod in group.left)
    late = f"{names} did not end within {HANG_SECONDS} s of it. All pods are stopped."
    text = f"{_lost_words(case, group.broken)} {late} {GROUP_STARTS_AGAIN}"
    return Decision(phase=Phase.STARTING, reason=GROUP_RESTARTS, message=text, suspend=True)


def broken(case: Case) -> Decision | None:
    """What is said of a group whose first pod goes on without another; None where it does not."""
    group = case.history.group
    if group is None or group.broken is None or not group.left:
        return None
    text, left_in = f"{_lost_words(case, group.broken)} {GROUP_STARTS_AGAIN}", _hung_in(case, group.broken)
    return Decision(phase=Phase.STARTING, reason=GROUP_RESTARTS, message=text, requeue_after=max(0.0, left_in))


def _hung_in(case: Case, moment: datetime) -> float:
    """Seconds until pods that go on since then are taken as stuck."""
    return HANG_SECONDS - (case.now - moment).total_seconds()


def _lost_words(case: Case, moment: datetime) -> str:
    """Whose end broke the group."""
    history = case.history
    if history.fault is not None:
        return history.fault.sentence
    for entry in reversed(history.attempts):
        if "finishedAt" in entry and parse_time(entry["finishedAt"]) >= moment:
            return f"Attempt {entry['number']} ended: {entry['message']}"
    return "A pod of the group ended."


def _ending(case: Case) -> Decision:
    """The pods end: what was said when they were stopped stays."""
    known = condition(case.observed.job, "Running") or {}
    return Decision(
        phase=Phase.STARTING, reason=GROUP_RESTARTS, message=known.get("message") or GROUP_STARTS_AGAIN, suspend=True
    )
