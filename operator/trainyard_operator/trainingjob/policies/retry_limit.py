"""The limit of faults, where the Job controller counts otherwise: it counts per index, and ignores some evictions."""

from __future__ import annotations

from trainyard_crds.exitcodes import OnExit
from trainyard_operator.reconcile.plan import Need
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policies.completion import end_cause, failed, retries_text
from trainyard_operator.trainingjob.policy_context import PolicyContext


def enforce_retry_limit(context: PolicyContext) -> Decision | Need | None:
    """Fail a job with more faults than spec.retry.limit that the Job controller would start again; None for others.

    The Job controller counts the faults of a gang per index; the limit holds for all of them together. It also ignores
    a pod that saved in time while the kubelet evicted it for its own use of storage. That counts here: it would happen
    to each next attempt, too.
    """
    history = context.history
    if not is_exhausted(context) or (history.gang is None and not history.counted_by_operator):
        return None
    return fail_exhausted(context)


def is_exhausted(context: PolicyContext) -> bool:
    """Return whether the last attempt was one fault too many."""
    end = context.history.verdict
    if end is None or end.action is not OnExit.COUNT:
        return False
    return context.history.counts.failed > context.spec.retry.limit


def fail_exhausted(context: PolicyContext) -> Decision | Need:
    """Fail a job with the last fault and the number of all."""
    history = context.history
    reason, text = end_cause(history)
    return failed(context.observed, history, reason, f"{text} {retries_text(context.observed, history)}")
