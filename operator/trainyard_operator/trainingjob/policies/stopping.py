"""Stop, suspension and preemption: save, free the GPUs, and report that only when it is done."""

from __future__ import annotations

from datetime import datetime

from trainyard_crds.trainingjob import Stop
from trainyard_crds.trainingjob_status import Phase
from trainyard_kube.paths import Object
from trainyard_operator.reconcile.fields import parse_time
from trainyard_operator.reconcile.plan import Deletion
from trainyard_operator.trainingjob.k8s_fields import is_being_deleted, job_suspended, pod_ended
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policy_context import PolicyContext

_FORCE_GRACE, _FORCE_TIMEOUT = 1, 30
"""Grace period in seconds under `stop: Force`, and seconds after which a pod on a dead node is force-deleted."""


def stop(context: PolicyContext) -> Decision | None:
    """Carry out `spec.stop`; None when it is not set."""
    if context.spec.stop is None:
        return None
    if context.spec.stop is Stop.FORCE:
        return _force(context)
    if context.is_idle:
        return _stopped(context, "StoppedByUser")
    text = "The job saves a checkpoint and stops."
    return Decision(phase=Phase.STOPPING, reason="StopRequested", message=text, suspend=True)


def suspend(context: PolicyContext) -> Decision | None:
    """Carry out `spec.suspend`; None when it is false."""
    if not context.spec.suspend:
        return None
    if context.child is None and context.history.last is None:
        text = "The job is suspended and has not started; set spec.suspend to false to start it."
        return Decision(phase=Phase.SUSPENDED, reason="SuspendedBeforeStart", message=text)
    if not context.is_idle:
        text = "The job saves a checkpoint and frees its GPUs."
        return Decision(phase=Phase.SUSPENDING, reason="SuspendRequested", message=text, suspend=True)
    text = "The job is suspended and holds no GPU; set spec.suspend to false to resume it where it was."
    return Decision(phase=Phase.SUSPENDED, reason="SuspendedByUser", message=text, suspend=True)


def yield_gpus(context: PolicyContext) -> Decision | None:
    """Free the GPUs of a job that the builtin queue preempts; None for others.

    A Job that was suspended before, and is not admitted, finishes saving before it waits.
    """
    if context.child is None or context.is_idle or context.admission.handoff is not None:
        return None
    if context.admission.preempted:
        text = "A job of higher priority needs the GPUs; this one saves a checkpoint and waits for its turn."
        return Decision(phase=Phase.SUSPENDING, reason="Preempted", message=text, suspend=True)
    if job_suspended(context.child) and not context.admission.admitted:
        text = "The job saves a checkpoint and frees its GPUs; then it waits for its turn."
        return Decision(phase=Phase.SUSPENDING, reason="Saving", message=text)
    return None


def _force(context: PolicyContext) -> Decision:
    child, pods = context.child, [pod for pod in context.observed.pods if not pod_ended(pod)]
    if child is None and not pods:
        return _stopped(context, "StoppedByForce")
    jobs = [_job_deletion(child)] if child and not is_being_deleted(child) else []
    deletions = [deletion for pod in pods if (deletion := _pod_deletion(pod, context.now))]
    return Decision(
        phase=Phase.STOPPING,
        reason="StopForced",
        message="The job is being stopped immediately, without a checkpoint.",
        delete=(*jobs, *deletions),
        requeue_after=_FORCE_TIMEOUT + 1 if pods else None,
    )


def _job_deletion(child: Object) -> Deletion:
    return Deletion("jobs", child["metadata"]["name"], child["metadata"]["uid"])


def _pod_deletion(pod: Object, now: datetime) -> Deletion | None:
    """Shorten a pod's grace period; force-delete it when its node is dead. None when that was done already."""
    metadata = pod["metadata"]
    deleted, grace = metadata.get("deletionTimestamp"), metadata.get("deletionGracePeriodSeconds")
    if deleted is None or grace is None or grace > _FORCE_GRACE:
        return Deletion("pods", metadata["name"], metadata["uid"], _FORCE_GRACE)
    if grace > 0 and (now - parse_time(deleted)).total_seconds() >= _FORCE_TIMEOUT:
        return Deletion("pods", metadata["name"], metadata["uid"], 0)
    return None


def _stopped(context: PolicyContext, reason: str) -> Decision:
    history = context.history
    # Suspended once more, so that no other client starts the Job before it is deleted.
    if history.last is None:
        text = "The job was stopped before it started."
        return Decision(phase=Phase.STOPPED, reason=reason, message=text, suspend=True)
    step = history.counts.last_step
    return Decision(
        phase=Phase.STOPPED,
        reason=reason,
        message=f"The job was stopped on request{f' after step {step}' if step else ''}.",
        termination=history.ending.termination if history.ending else None,
        suspend=True,
    )
