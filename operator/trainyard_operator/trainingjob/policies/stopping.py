"""Stop and suspension: save, free the GPUs, and only then say so."""

from __future__ import annotations

from datetime import datetime

from trainyard_crds.trainingjob import Stop
from trainyard_crds.trainingjob_status import Phase
from trainyard_kube.paths import Object
from trainyard_operator.reconcile.fields import parse_time
from trainyard_operator.reconcile.plan import Deletion
from trainyard_operator.trainingjob.k8s_fields import job_suspended, pod_ended
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policy_context import Case

_FORCE_GRACE, _FORCE_PATIENCE = 1, 30
"""Seconds a container gets under `stop: Force`, and after which a pod on a dead node is given up."""


def stop(case: Case) -> Decision | None:
    """What `spec.stop` asks for; None when it is not set."""
    if case.spec.stop is None:
        return None
    if case.spec.stop is Stop.FORCE:
        return _force(case)
    if case.idle:
        return _stopped(case, "StoppedByUser")
    return Decision(
        phase=Phase.STOPPING,
        reason="StopRequested",
        message="The job saves a checkpoint and stops.",
        suspend=True,
    )


def suspend(case: Case) -> Decision | None:
    """What `spec.suspend` asks for; None when it is false."""
    if not case.spec.suspend:
        return None
    if case.child is None and case.history.last is None:
        text = "The job is suspended and has not started; set spec.suspend to false to start it."
        return Decision(phase=Phase.SUSPENDED, reason="SuspendedBeforeStart", message=text)
    if not case.idle:
        text = "The job saves a checkpoint and frees its GPUs."
        return Decision(phase=Phase.SUSPENDING, reason="SuspendRequested", message=text, suspend=True)
    text = "The job is suspended and holds no GPU; set spec.suspend to false to resume it where it was."
    return Decision(phase=Phase.SUSPENDED, reason="SuspendedByUser", message=text, suspend=True)


def make_room(case: Case) -> Decision | None:
    """What the queue asks for when a job of higher priority needs the GPUs; None when it does not.

    A Job that was suspended before, and may not go on yet, has to be done with saving before it waits.
    """
    if case.child is None or case.idle or case.admission.handoff is not None:
        return None
    if case.admission.preempted:
        text = "A job of higher priority needs the GPUs; this one saves a checkpoint and waits for its turn."
        return Decision(phase=Phase.SUSPENDING, reason="Preempted", message=text, suspend=True)
    if job_suspended(case.child) and not case.admission.admitted:
        text = "The job saves a checkpoint and frees its GPUs; then it waits for its turn."
        return Decision(phase=Phase.SUSPENDING, reason="Saving", message=text)
    return None


def _force(case: Case) -> Decision:
    child, pods = case.child, [pod for pod in case.observed.pods if not pod_ended(pod)]
    if child is None and not pods:
        return _stopped(case, "StoppedByForce")
    jobs = [_job(child)] if child and "deletionTimestamp" not in child["metadata"] else []
    kills = [kill for pod in pods if (kill := _kill(pod, case.now))]
    return Decision(
        phase=Phase.STOPPING,
        reason="StopForced",
        message="The job is being ended at once.",
        delete=(*jobs, *kills),
        requeue_after=_FORCE_PATIENCE + 1 if pods else None,
    )


def _job(child: Object) -> Deletion:
    return Deletion("jobs", child["metadata"]["name"], child["metadata"]["uid"])


def _kill(pod: Object, now: datetime) -> Deletion | None:
    """Hurry a pod; force it away when its node does not answer. None when that was done already."""
    metadata = pod["metadata"]
    deleted, grace = metadata.get("deletionTimestamp"), metadata.get("deletionGracePeriodSeconds")
    if deleted is None or grace is None or grace > _FORCE_GRACE:
        return Deletion("pods", metadata["name"], metadata["uid"], _FORCE_GRACE)
    if grace > 0 and (now - parse_time(deleted)).total_seconds() >= _FORCE_PATIENCE:
        return Deletion("pods", metadata["name"], metadata["uid"], 0)
    return None


def _stopped(case: Case, reason: str) -> Decision:
    history = case.history
    if history.last is None:
        text = "The job was stopped before it started."
        return Decision(phase=Phase.STOPPED, reason=reason, message=text, suspend=True)
    step = history.counts.last_step
    return Decision(
        phase=Phase.STOPPED,
        reason=reason,
        message=f"The job was stopped on request{f' after step {step}' if step else ''}.",
        termination=history.ending.termination if history.ending else None,
        suspend=True,  # whoever starts its Job must not do so between now and the Job's deletion
    )
