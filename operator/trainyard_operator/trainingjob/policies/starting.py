"""From admission to a running container."""

from __future__ import annotations

from dataclasses import replace

from trainyard_crds.trainingjob_resources import SHARED_ACCESS
from trainyard_crds.trainingjob_status import Phase
from trainyard_operator.reconcile.plan import Need, Refusal
from trainyard_operator.trainingjob.children.render import children
from trainyard_operator.trainingjob.claim import claim_need
from trainyard_operator.trainingjob.k8s_fields import job_suspended
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policies import deadlines
from trainyard_operator.trainingjob.policies.gang_restart import report_broken_gang
from trainyard_operator.trainingjob.policies.namespace_termination import RECHECK_SECONDS, awaits_replacements
from trainyard_operator.trainingjob.policies.pending_reason import NO_POD_SECONDS, no_pod_need, pending_reason
from trainyard_operator.trainingjob.policies.resuming import refuse_unknown_run
from trainyard_operator.trainingjob.policies.start_timeout import seconds_to_timeout, waits_for_new_node
from trainyard_operator.trainingjob.policy_context import PolicyContext
from trainyard_operator.trainingjob.spec import InvalidSpecError

DELAY_SECONDS = 2
"""Seconds for which the first status of a start is delayed: mostly the container runs by then, which saves a write."""
_STARTED = (Phase.STARTING, Phase.RUNNING)


def start_or_run(context: PolicyContext) -> Decision | Need:
    """Create the children of a job, resume it, wait for its container, or follow its run."""
    if context.child is not None:
        return (
            _resume(context)
            if job_suspended(context.child)
            else _delay(context) or no_pod_need(context) or _run(context)
        )
    if context.observed.refusal is not None:
        return _report_refusal(context, context.observed.refusal)
    return _create(context)


def _create(context: PolicyContext) -> Decision | Need:
    refused = _refuse_unshared_claim(context) or refuse_unknown_run(context) or _await_quota(context)
    if refused is not None:
        return refused
    queued = _queued(context)
    if queued is not None:
        return queued
    try:
        bodies = children(context.observed, context.settings, context.admission)
    except InvalidSpecError as error:
        return Decision(phase=Phase.FAILED, reason="InvalidSpec", message=str(error))
    return Decision(phase=None, create=bodies)  # the status follows: see _delay


def _refuse_unshared_claim(context: PolicyContext) -> Decision | Need | None:
    """Fail a gang whose claim its pods cannot share, when it is first observed and when it is admitted.

    A missing claim is accepted: the pods wait for it, as the pod of a job on one node does.
    """
    gang, name = context.history.gang, context.spec.storage.claim_name
    is_new = "phase" not in context.observed.status
    if gang is None or name is None or not (context.admission.admitted or is_new):
        return None
    need = Need("persistentvolumeclaims", name)
    if need not in context.observed.answers:
        return need
    claim = context.observed.answers[need]
    modes = claim["spec"].get("accessModes") or [] if claim else [SHARED_ACCESS]
    if SHARED_ACCESS in modes:
        return None
    text = (
        f"spec.storage.claimName: the claim {name} allows {', '.join(modes)} only, but the {gang.size} pods of "
        f"spec.resources.nodes share it. Name a claim that allows {SHARED_ACCESS}, or set nodes to 1, in a new "
        "TrainingJob."
    )
    return Decision(phase=Phase.FAILED, reason="InvalidSpec", message=text)


def _await_quota(context: PolicyContext) -> Need | None:
    """Look up the claim of a job that waits for quota: an earlier start may have created it."""
    return claim_need(context.observed) if context.admission.reason == "QuotaExceeded" else None


def _queued(context: PolicyContext) -> Decision | None:
    admission = context.admission
    if admission.admitted:
        return None
    if not admission.decided:
        return Decision(phase=None)
    phase = Phase.PENDING if admission.pending else Phase.QUEUED
    return Decision(phase=phase, reason=admission.reason, message=admission.message, waits=True, suspend=False)


def _report_refusal(context: PolicyContext, refusal: Refusal) -> Decision:
    if refusal.final:
        return Decision(phase=Phase.FAILED, reason=refusal.reason, message=refusal.message)
    if context.admission.handoff is not None:
        # Kueue's webhooks validate every new Job. While Kueue is down the job waits as in its queue; a Job that they
        # refuse is not admitted: the start deadline has not begun.
        phase = Phase.QUEUED if refusal.transient else Phase.PENDING
        return Decision(phase=phase, reason=refusal.reason, message=refusal.message, waits=True)
    late = None if refusal.may_pass else _late(context, refusal.reason, refusal.message)
    # Pending, not Starting: no child exists yet.
    return late or Decision(phase=Phase.PENDING, reason=refusal.reason, message=refusal.message)


def _delay(context: PolicyContext) -> Decision | None:
    """Delay the first status of a start, so that one write reports start, attempt and run."""
    waited = deadlines.seconds_starting(context)
    reported = context.observed.status.get("phase") in _STARTED
    if reported or context.history.running or waited is None or waited >= DELAY_SECONDS:
        return None
    return Decision(phase=None, requeue_after=DELAY_SECONDS - waited)


def _resume(context: PolicyContext) -> Decision:
    return _queued(context) or replace(_run(context), suspend=False)


def _run(context: PolicyContext) -> Decision:
    if context.history.running and context.history.last:
        left = deadlines.active_seconds_left(context)
        text = f"Attempt {context.history.last['number']} is training."
        return Decision(phase=Phase.RUNNING, reason="TrainerRunning", message=text, requeue_after=left)
    broken = report_broken_gang(context)
    if broken is not None:
        return broken
    reason, message = pending_reason(context)
    waiting = Decision(
        phase=Phase.STARTING, reason=reason, message=message, requeue_after=_seconds_to_next_message(context)
    )
    return waiting if waits_for_new_node(context) else _late(context, reason, message) or waiting


def _seconds_to_next_message(context: PolicyContext) -> float | None:
    """Return the seconds until the passing of time changes the message of a start."""
    waited = deadlines.seconds_starting(context)
    if waited is None:
        return None
    to_deadline = context.spec.start_deadline_seconds - deadlines.seconds_of_all_starts(context)
    to_recheck = RECHECK_SECONDS if awaits_replacements(context) else 0
    due = [NO_POD_SECONDS - waited, seconds_to_timeout(context) or 0, to_deadline, to_recheck]
    return min((seconds for seconds in due if seconds > 0), default=None)


def _late(context: PolicyContext, reason: str, message: str) -> Decision | None:
    """Fail a job whose container did not run in time."""
    starting = deadlines.seconds_starting(context) is not None
    if not starting or deadlines.seconds_of_all_starts(context) < context.spec.start_deadline_seconds:
        return None
    text = deadlines.start_deadline_message(context.spec, message)
    return Decision(phase=Phase.FAILED, reason=reason, message=text)
