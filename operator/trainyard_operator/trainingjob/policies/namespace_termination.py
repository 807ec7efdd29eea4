"""A namespace that is being deleted: the Job of several nodes goes first.

Kubernetes ends the pods of such a namespace before it touches anything else, and waits until they are gone. The Job
controller keeps the last ended pod of each index (finalizer batch.kubernetes.io/job-tracking) until its replacement is
there, which the namespace refuses: both wait for ever, unless the Job is deleted. Jobs on one node let their pods go.
"""

from __future__ import annotations

from trainyard_crds.trainingjob_status import Phase
from trainyard_operator.reconcile.fields import owned_by
from trainyard_operator.reconcile.plan import TERMINATING, Need
from trainyard_operator.trainingjob.k8s_fields import is_gone, pod_ended
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policy_context import Case

_TRACKING = "batch.kubernetes.io/job-tracking"

LOOK_SECONDS = 30
"""Seconds after which it is asked again whether the namespace of pods that wait for their replacements is going."""


def leave(case: Case) -> Decision | Need | None:
    """The end of a group whose namespace is being deleted, or the question whether it is; None for others."""
    if not is_kept(case):
        return None
    namespace = case.observed.job["metadata"]["namespace"]
    need = Need(TERMINATING, namespace)
    if need not in case.observed.answers:
        return need
    if not case.observed.answers[need]:
        return None
    # What is still there of a stopped job's Job is deleted next.
    return Decision(
        phase=Phase.STOPPED,
        reason="NamespaceDeleted",
        message=f"The namespace {namespace} is being deleted, and the job with it.",
        termination=case.history.ending.termination if case.history.ending else None,
    )


def is_kept(case: Case) -> bool:
    """Whether all that is left of a group are pods that ended and were deleted, and wait for their replacements."""
    child = case.child
    if case.history.group is None or child is None:
        return False
    pods = [pod for pod in case.observed.pods if owned_by(pod, child["metadata"]["uid"]) and not is_gone(pod)]
    return bool(pods) and all(pod_ended(pod) and _TRACKING in pod["metadata"].get("finalizers", []) for pod in pods)
