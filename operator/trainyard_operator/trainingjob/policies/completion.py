"""The end of a job whose training Job finished."""

from __future__ import annotations

from dataclasses import replace

from trainyard_crds.constants import TRAINER_CONTAINER
from trainyard_crds.report import Outcome, Termination
from trainyard_crds.trainingjob_status import Phase
from trainyard_kube.paths import Object
from trainyard_operator.reconcile.fields import condition, holds
from trainyard_operator.reconcile.plan import LOG, Need
from trainyard_operator.trainingjob.children.render import check_job
from trainyard_operator.trainingjob.k8s_fields import job_finished, terminated
from trainyard_operator.trainingjob.model import Decision, Observed, RenderSettings
from trainyard_operator.trainingjob.pods.attempts import History
from trainyard_operator.trainingjob.pods.pod_termination import parse_termination
from trainyard_operator.trainingjob.pods.redact import tail
from trainyard_operator.trainingjob.policy_context import PolicyContext

LOG_TAIL_LIMIT = 2048
_RETRIES_EXHAUSTED = ("BackoffLimitExceeded", "MaxFailedIndexesExceeded", "FailedIndexes")
_RESULT_UNKNOWN = (
    "The training Job completed, but its result is unknown: the pod reported none and none could be read from the "
    "volume. See {uri}; a new TrainingJob with spec.resumeFrom continues from its last checkpoint."
)


def complete(context: PolicyContext) -> Decision | Need:
    """Succeed or fail as the trainer reported; otherwise read the result from the volume with a check Job."""
    observed, history = context.observed, context.history
    if history.ending is not None and history.ending.finished:
        return succeeded(history.ending.termination)
    if holds(observed.child, "Failed"):
        return failed(observed, history, *_failure(observed, history))
    message = _RESULT_UNKNOWN.format(uri=observed.status.get("runUri", "the run's volume"))
    return read_result(observed, context.settings, otherwise=("ResultUnknown", message))


def succeeded(termination: Termination | None) -> Decision:
    """Return the decision that the run finished."""
    text = termination.message if termination else ""
    return Decision(
        phase=Phase.SUCCEEDED, reason="TrainingFinished", message=text or "Training finished.", termination=termination
    )


def failed(observed: Observed, history: History, reason: str, message: str) -> Decision | Need:
    """Return the decision that the job failed, with the end of its last container's log, or that look-up."""
    termination = history.ending.termination if history.ending else None
    decision = Decision(phase=Phase.FAILED, reason=reason, message=message, termination=termination)
    pod = history.fault.pod if history.fault else history.pod
    if pod is None or history.verdict is None or history.verdict.exit_code is None:
        return decision
    need = Need(LOG, pod["metadata"]["name"], TRAINER_CONTAINER)
    if need not in observed.answers:
        return need
    return replace(decision, log_tail=tail(observed.answers[need] or "", LOG_TAIL_LIMIT) or None)


def end_cause(history: History) -> tuple[str, str]:
    """Return reason and sentence of the end that decided, with the pod's name where another pod was at fault."""
    end = history.verdict
    assert end is not None
    if history.fault is None:
        return end.reason, end.sentence
    return end.reason, " ".join(part for part in (history.fault.sentence, end.advice) if part)


def retries_text(observed: Observed, history: History) -> str:
    """Return how many attempts failed, and how many may."""
    return f"Attempts that count as faults: {history.counts.failed}, spec.retry.limit: {observed.spec.retry.limit}."


def _failure(observed: Observed, history: History) -> tuple[str, str]:
    """Return reason and sentence of a failed Job: the last pod's where it is known, else the Job controller's."""
    found = condition(observed.child, "Failed") or {}
    if history.verdict is not None:
        reason, text = end_cause(history)
    elif history.last is not None and "reason" in history.last:
        reason, text = history.last["reason"], history.last["message"]
    else:
        return found.get("reason") or "JobFailed", found.get("message") or "The training Job failed."
    if found.get("reason") in _RETRIES_EXHAUSTED:
        text += f" {retries_text(observed, history)}"
    return reason, text


def read_result(observed: Observed, settings: RenderSettings, *, otherwise: tuple[str, str]) -> Decision:
    """Return what the check Job found on the volume; create the check Job where there is none.

    Args:
        observed: The TrainingJob.
        settings: The operator's settings.
        otherwise: Reason and message of the failure where no finished run is found.
    """
    if observed.check is None:
        image = (observed.child or {}).get("spec", {}).get("image")
        # The phase stays: the GPUs are free, and the result is not known yet.
        return Decision(phase=None, create=(check_job(observed, settings, image=image),))
    found = checked_termination(observed)
    if found is not None and found.outcome is Outcome.FINISHED:
        return succeeded(found)
    if found is None and not job_finished(observed.check):
        return Decision(phase=None)
    reason, message = otherwise
    return Decision(phase=Phase.FAILED, reason=reason, message=message, termination=found)


def checked_termination(observed: Observed) -> Termination | None:
    """Return what the check Job reported of the volume: the result of a finished run, or that there is none."""
    return next((result for pod in observed.check_pods if (result := _result(pod))), None)


def _result(pod: Object) -> Termination | None:
    return parse_termination(terminated(pod).get("message"))
