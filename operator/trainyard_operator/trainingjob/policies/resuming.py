"""spec.resumeFrom: finds the run directory of the other TrainingJob before the trainer starts."""

from __future__ import annotations

from trainyard_crds.trainingjob_status import Phase
from trainyard_operator.reconcile.plan import Need
from trainyard_operator.trainingjob.children.resumed_run import resume_need, run_uri_of
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policy_context import PolicyContext


def refuse_unknown_run(context: PolicyContext) -> Decision | Need | None:
    """Fail a job that resumes from a TrainingJob without a run, when it is first observed and when it is admitted."""
    need = resume_need(context.spec)
    is_new = "phase" not in context.observed.status
    if need is None or not (context.admission.admitted or is_new):
        return None
    if need not in context.observed.answers:
        return need
    other = context.observed.answers[need]
    if other is None:
        return _invalid(
            f"there is no TrainingJob {need.name} in this namespace. If it was deleted and its claim still exists, "
            "set spec.resumeFrom.runUri to its former status.runUri (pvc://CLAIM/trainyard/NAME-UID) instead of "
            "trainingJob, in a new TrainingJob."
        )
    if run_uri_of(other) is None:
        return _invalid(
            f"the TrainingJob {need.name} has not started, so it has no checkpoint. Wait for its first checkpoint and "
            "create this TrainingJob again, or remove spec.resumeFrom."
        )
    return None


def _invalid(problem: str) -> Decision:
    return Decision(phase=Phase.FAILED, reason="InvalidSpec", message=f"spec.resumeFrom.trainingJob: {problem}")
