"""A TrainingJob that was created again from a backup: its run is found again, and a finished one stays finished."""

from __future__ import annotations

from dataclasses import replace

from trainyard_crds.report import Outcome
from trainyard_crds.trainingjob_status import Phase
from trainyard_operator.reconcile.plan import Need
from trainyard_operator.trainingjob.children.render import check_job
from trainyard_operator.trainingjob.children.runconfig import run_claim, run_uri
from trainyard_operator.trainingjob.k8s_fields import job_finished
from trainyard_operator.trainingjob.model import Decision, Observed
from trainyard_operator.trainingjob.policies.completion import checked_termination, succeeded
from trainyard_operator.trainingjob.policy_context import PolicyContext
from trainyard_operator.trainingjob.run_identity import READING, WAITING_FOR_CLAIM, had_failed, is_restoring

RECHECK_SECONDS = 30.0
"""Seconds between two look-ups of a claim that is not restored yet."""


def restore(context: PolicyContext) -> Decision | Need | None:
    """Read the result of a restored run with a check Job; None once it is known that the run is to continue."""
    observed = context.observed
    if not is_restoring(observed):
        return None
    if had_failed(observed):
        return _failed(observed)
    need = Need("persistentvolumeclaims", run_claim(observed.job, observed.spec))
    if need not in observed.answers:
        return need
    return _without_claim(context, need.name) if observed.answers[need] is None else _read(context)


def _read(context: PolicyContext) -> Decision:
    observed = context.observed
    reported = checked_termination(observed)
    if reported is not None and reported.outcome is Outcome.FINISHED:
        found = succeeded(reported)
        return replace(found, reason="Restored", message=f"Restored; the run had finished. {found.message}")
    uri = run_uri(observed.job, observed.spec)
    if reported is not None or job_finished(observed.check):
        # The status names the run directory from here on, so that it is not read again, and the queue admits the job.
        text = f"The TrainingJob was restored; its run continues in {uri}."
        return Decision(phase=Phase.PENDING, reason="Restored", message=text, waits=True, requeue_after=0.0)
    text = f"The TrainingJob was restored; its run directory {uri} is read for the result of the run."
    if observed.refusal is not None:
        text += f" {observed.refusal.message}"
    check = () if observed.check else (check_job(observed, context.settings, image=None),)
    return Decision(phase=Phase.PENDING, reason=READING, message=text, create=check, waits=True)


def _failed(observed: Observed) -> Decision:
    text = (
        f"The run had failed before this TrainingJob was restored. See {run_uri(observed.job, observed.spec)}; a new "
        "TrainingJob with spec.resumeFrom continues from its last checkpoint."
    )
    return Decision(phase=Phase.FAILED, reason="Restored", message=text)


def _without_claim(context: PolicyContext, claim: str) -> Decision | None:
    if context.spec.stop is not None:
        return None
    text = (
        f"The TrainingJob was restored, but the claim {claim} with its run does not exist. Restore the claim; or, to "
        "train from the beginning, remove the annotation trainyard.dev/run."
    )
    return Decision(
        phase=Phase.PENDING, reason=WAITING_FOR_CLAIM, message=text, waits=True, requeue_after=RECHECK_SECONDS
    )
