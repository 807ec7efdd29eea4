"""A deleted TrainingJob that a finalizer of another controller keeps: its Job is deleted, which frees its GPUs.

Without finalizers the object is gone at once, and the garbage collector deletes its children. It also does so under a
foreground deletion, and leaves them under an orphaning one.
"""

from __future__ import annotations

from trainyard_crds.trainingjob_status import Phase
from trainyard_kube.paths import Object
from trainyard_operator.reconcile.plan import Deletion
from trainyard_operator.trainingjob.k8s_fields import is_being_deleted
from trainyard_operator.trainingjob.model import Decision, Observed
from trainyard_operator.trainingjob.policy_context import PolicyContext

_REASON = "Deleted"
_GARBAGE_COLLECTOR = ("foregroundDeletion", "orphan")


def is_held_by_others(observed: Observed) -> bool:
    """Return whether only finalizers of other controllers keep a deleted TrainingJob."""
    finalizers = observed.job["metadata"].get("finalizers") or []
    return observed.is_being_deleted and bool(finalizers) and not any(each in _GARBAGE_COLLECTOR for each in finalizers)


def end_deleted(context: PolicyContext) -> Decision | None:
    """Delete the Jobs of a TrainingJob that is being deleted, and report what keeps it; None for others."""
    observed = context.observed
    if not observed.is_being_deleted:
        return None
    finalizers = ", ".join(observed.job["metadata"].get("finalizers") or [])
    jobs = [observed.child, observed.check, *observed.export_jobs]
    live = [job for job in jobs if job is not None]
    if not live and context.is_idle:
        text = f"The job was deleted and holds no GPU; the object stays until its finalizers are removed: {finalizers}."
        termination = context.history.ending.termination if context.history.ending else None
        return Decision(phase=Phase.STOPPED, reason=_REASON, message=text, termination=termination)
    return Decision(
        phase=Phase.STOPPING,
        reason=_REASON,
        message=f"The job is being deleted; it saves a checkpoint and frees its GPUs. Finalizers: {finalizers}.",
        delete=tuple(_deletion(job) for job in live if not is_being_deleted(job)),
    )


def _deletion(job: Object) -> Deletion:
    return Deletion("jobs", job["metadata"]["name"], job["metadata"]["uid"])
