"""A namespace that is being deleted: the Job of a gang is deleted first.

Kubernetes ends the pods of such a namespace before it deletes anything else, and waits until they are gone. The Job
controller keeps the last ended pod of each index (finalizer batch.kubernetes.io/job-tracking) until its replacement
exists, which the namespace refuses: both wait for ever unless the Job is deleted. Jobs on one node release their pods.
"""

from __future__ import annotations

from trainyard_crds.trainingjob_status import Phase
from trainyard_operator.reconcile.fields import owned_by
from trainyard_operator.reconcile.plan import TERMINATING, Need
from trainyard_operator.trainingjob.k8s_fields import is_gone, pod_ended
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policy_context import PolicyContext

_TRACKING = "batch.kubernetes.io/job-tracking"

RECHECK_SECONDS = 30
"""Seconds between two look-ups of the namespace while pods wait for their replacements."""


def end_with_namespace(context: PolicyContext) -> Decision | Need | None:
    """End a gang whose namespace is being deleted, or look that up; None for others."""
    if not awaits_replacements(context):
        return None
    namespace = context.observed.namespace
    need = Need(TERMINATING, namespace)
    if need not in context.observed.answers:
        return need
    if not context.observed.answers[need]:
        return None
    # The next reconcile deletes what is left of a stopped job's Job.
    return Decision(
        phase=Phase.STOPPED,
        reason="NamespaceDeleted",
        message=f"The namespace {namespace} is being deleted, and the job with it.",
        termination=context.history.ending.termination if context.history.ending else None,
    )


def awaits_replacements(context: PolicyContext) -> bool:
    """Return whether all pods of a gang ended and were deleted, and are kept until they are replaced."""
    child = context.child
    if context.history.gang is None or child is None:
        return False
    pods = [pod for pod in context.observed.pods if owned_by(pod, child["metadata"]["uid"]) and not is_gone(pod)]
    return bool(pods) and all(pod_ended(pod) and _TRACKING in pod["metadata"].get("finalizers", []) for pod in pods)
