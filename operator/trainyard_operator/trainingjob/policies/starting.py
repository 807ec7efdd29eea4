"""From admission to a running container."""

from __future__ import annotations

from dataclasses import replace

from trainyard_crds.constants import child_name
from trainyard_crds.trainingjob_resources import SHARED_ACCESS
from trainyard_crds.trainingjob_status import Phase
from trainyard_operator.reconcile.plan import Need, Refusal
from trainyard_operator.trainingjob.children.render import children
from trainyard_operator.trainingjob.k8s_fields import job_suspended
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policies import deadlines, start_timeout
from trainyard_operator.trainingjob.policies.completion import failed
from trainyard_operator.trainingjob.policies.gang_restart import broken
from trainyard_operator.trainingjob.policies.namespace_termination import LOOK_SECONDS, is_kept
from trainyard_operator.trainingjob.policies.pending_reason import NO_POD_SECONDS, waiting_reason
from trainyard_operator.trainingjob.policy_context import Case
from trainyard_operator.trainingjob.spec import InvalidSpecError

NEAR_SECONDS = 2
"""Seconds for which the word about a start waits for the container: mostly one write then tells of start and run."""
_STARTED = (Phase.STARTING, Phase.RUNNING)


def start_or_run(case: Case) -> Decision | Need:
    """A job that is to run: create its children, resume it, wait for its container, or watch it run."""
    if case.child is not None:
        return _resume(case) if job_suspended(case.child) else _run_is_near(case) or _run(case)
    if "jobName" in case.observed.status:
        return _vanished(case)
    if case.observed.refusal is not None:
        return _refused(case, case.observed.refusal)
    return _create(case)


def _create(case: Case) -> Decision | Need:
    unshared = _unshared(case)
    if unshared is not None:
        return unshared
    queued = _queued(case)
    if queued is not None:
        return queued
    try:
        bodies = children(case.observed, case.settings, case.admission)
    except InvalidSpecError as error:
        return Decision(phase=Phase.FAILED, reason="InvalidSpec", message=str(error))
    return Decision(phase=None, create=bodies)  # there is more to tell in a moment: see _run_is_near


def _unshared(case: Case) -> Decision | Need | None:
    """The refusal of a claim that the pods of several nodes cannot share; looked at first, and before they start.

    One that is not there yet may come: its pods wait for it, as that of one node does.
    """
    name = case.spec.storage.claim_name
    asked = case.admission.admitted or "phase" not in case.observed.status
    if case.history.group is None or name is None or not asked:
        return None
    need = Need("persistentvolumeclaims", name)
    if need not in case.observed.answers:
        return need
    claim = case.observed.answers[need]
    modes = claim["spec"].get("accessModes") or [] if claim else [SHARED_ACCESS]
    if SHARED_ACCESS in modes:
        return None
    text = (
        f"spec.storage.claimName: the claim {name} allows {', '.join(modes)} only, but the "
        f"{case.history.group.size} pods of spec.resources.nodes share it. Name a claim that allows {SHARED_ACCESS}, "
        "or set nodes to 1, in a new TrainingJob."
    )
    return Decision(phase=Phase.FAILED, reason="InvalidSpec", message=text)


def _queued(case: Case) -> Decision | None:
    admission = case.admission
    if admission.admitted:
        return None
    if not admission.decided:
        return Decision(phase=None)
    phase = Phase.PENDING if admission.pending else Phase.QUEUED
    return Decision(phase=phase, reason=admission.reason, message=admission.message, waits=True, suspend=False)


def _vanished(case: Case) -> Decision | Need:
    """A Job that was made and is gone is not made again: its budget of retries and its frozen template are lost."""
    need = Need("jobs", child_name(case.observed.name, case.observed.uid))
    if need not in case.observed.answers:
        return need
    text = (
        f"The training Job {need.name} was deleted by somebody else. Checkpoints remain on the volume; use "
        "spec.suspend to pause a job and spec.stop to end it."
    )
    return failed(case.observed, case.history, "JobDeleted", text)


def _refused(case: Case, refusal: Refusal) -> Decision:
    if refusal.final:
        return Decision(phase=Phase.FAILED, reason=refusal.reason, message=refusal.message)
    if case.admission.handoff is not None:
        # Kueue's webhooks see every new Job: while Kueue is down the job waits as it would in its queue, and what they
        # refuse has not been let in: the time that a start may take has not begun.
        phase = Phase.QUEUED if refusal.transient else Phase.PENDING
        return Decision(phase=phase, reason=refusal.reason, message=refusal.message, waits=True)
    late = _late(case, refusal.reason, refusal.message)
    # Pending, not Starting: nothing of the job exists yet.
    return late or Decision(phase=Phase.PENDING, reason=refusal.reason, message=refusal.message)


def _run_is_near(case: Case) -> Decision | None:
    """A new Job's container mostly runs within a moment: one status write then tells of start, attempt and run."""
    waited = deadlines.start_seconds(case)
    told = case.observed.status.get("phase") in _STARTED
    if told or case.history.running or waited is None or waited >= NEAR_SECONDS:
        return None
    return Decision(phase=None, requeue_after=NEAR_SECONDS - waited)


def _resume(case: Case) -> Decision:
    return _queued(case) or replace(_run(case), suspend=False)


def _run(case: Case) -> Decision:
    if case.history.running and case.history.last:
        left = deadlines.active_seconds_left(case)
        text = f"Attempt {case.history.last['number']} is training."
        return Decision(phase=Phase.RUNNING, reason="TrainerRunning", message=text, requeue_after=left)
    lost = broken(case)
    if lost is not None:
        return lost
    reason, message = waiting_reason(case)
    waiting = Decision(phase=Phase.STARTING, reason=reason, message=message, requeue_after=_next_look(case))
    return _late(case, reason, message) or waiting


def _next_look(case: Case) -> float | None:
    """Seconds until time alone changes what is said of a start."""
    waited = deadlines.start_seconds(case)
    if waited is None:
        return None
    left = case.spec.start_deadline_seconds - deadlines.tried_seconds(case)
    leaving = LOOK_SECONDS if is_kept(case) else 0
    due = [NO_POD_SECONDS - waited, start_timeout.seconds_left(case) or 0, left, leaving]
    return min((seconds for seconds in due if seconds > 0), default=None)


def _late(case: Case, reason: str, message: str) -> Decision | None:
    """The failure of a job whose container did not run in time."""
    if deadlines.start_seconds(case) is None or deadlines.tried_seconds(case) < case.spec.start_deadline_seconds:
        return None
    return Decision(phase=Phase.FAILED, reason=reason, message=deadlines.too_late(case.spec, message))
