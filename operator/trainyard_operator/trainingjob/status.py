"""The operator's share of a TrainingJob's status, and the smallest patch that brings it about."""

from __future__ import annotations

from datetime import datetime

from trainyard_crds.constants import child_name
from trainyard_crds.trainingjob_status import FINAL_PHASES, Phase
from trainyard_kube.paths import Object
from trainyard_operator.admission.decision import QUEUE_IDENTITY_FIELDS, QUEUE_WAITING_FIELDS, Admission
from trainyard_operator.reconcile.fields import format_time, holds
from trainyard_operator.reconcile.plan import Note
from trainyard_operator.trainingjob.children.runconfig import run_uri
from trainyard_operator.trainingjob.conditions import job_conditions
from trainyard_operator.trainingjob.final_status import final_values
from trainyard_operator.trainingjob.model import Decision, Observed
from trainyard_operator.trainingjob.pods.attempts import History

_MESSAGE_LIMIT = 2048
_STARTED = (*FINAL_PHASES, Phase.RUNNING)


def desired_status(
    observed: Observed, decision: Decision, history: History, admission: Admission, now: datetime
) -> Object:
    """The operator's share of the status after a decision; None removes a field."""
    assert decision.phase is not None
    resources = observed.spec.resources
    status: Object = {
        "observedGeneration": observed.job["metadata"].get("generation"),
        "phase": decision.phase.value,
        "message": _message(decision)[:_MESSAGE_LIMIT],
        "conditions": job_conditions(observed, decision, history, now),
        "summary": {"gpus": str(resources.gpus * resources.nodes)},
    }
    if observed.child is not None or decision.create:
        status |= {"jobName": child_name(observed.name, observed.uid), "runUri": run_uri(observed.job, observed.spec)}
    status |= _attempt_fields(observed, history)
    status["queue"] = _queue(observed, decision, admission)
    status["summary"]["queue"] = _place(status["queue"])
    if decision.phase in FINAL_PHASES:
        status |= {"completionTime": format_time(now), "logTail": decision.log_tail}
    if decision.phase in FINAL_PHASES or (history.ended_now and not history.running):
        termination = decision.termination or (history.ending.termination if history.ending else None)
        values = final_values(observed, termination, now)
        status["summary"] |= values.pop("summary")
        status |= values
    return status


def _queue(observed: Observed, decision: Decision, admission: Admission) -> Object | None:
    """The entry in `status.queue`: a job that does not wait keeps its pool and its stamp only."""
    known = observed.status.get("queue") or {}
    told = admission.queue or known
    if not told:
        return None
    waits = decision.phase is Phase.QUEUED
    if waits and observed.refusal is not None:
        told = told | {"reason": observed.refusal.reason}
    shown = told if waits else {key: told[key] for key in QUEUE_IDENTITY_FIELDS if key in told}
    failed = None if decision.phase in _STARTED else decision.failed_starts or known.get("failedStarts")
    return {key: shown.get(key) for key in (*QUEUE_IDENTITY_FIELDS, *QUEUE_WAITING_FIELDS)} | {"failedStarts": failed}


def _place(queue: Object | None) -> str | None:
    return f"{queue['position']} of {queue['length']}" if queue and queue.get("position") else None


def _message(decision: Decision) -> str:
    """What the phase says, and what to be warned of: that is read in `kubectl get -o wide` too."""
    if decision.phase in FINAL_PHASES:
        return decision.message
    caution = decision.caution.message if decision.caution else ""
    return " ".join(text for text in (decision.message, decision.obstacle, caution) if text)


def _attempt_fields(observed: Observed, history: History) -> Object:
    if not history.attempts:
        return {}
    fields: Object = {"attempts": history.attempts, "attemptCounts": history.counts.to_json()}
    started = [entry["startedAt"] for entry in history.attempts if "startedAt" in entry]
    if started and "startTime" not in observed.status:
        fields["startTime"] = started[0]
    return fields


def note(observed: Observed, decision: Decision) -> Note | None:
    """The Event of a phase transition, or of a new caution; None when both stay."""
    if decision.phase is None:
        return None
    if observed.status.get("phase") == decision.phase.value:
        new = decision.caution is not None and not holds(observed.job, decision.caution.condition)
        return (
            Note("Warning", decision.caution.condition, decision.caution.message) if new and decision.caution else None
        )
    text = f"{decision.reason}: {decision.message}"
    return Note("Warning" if decision.phase is Phase.FAILED else "Normal", decision.phase.value, text)
