"""The operator's share of a TrainingJob's status, and the Events of its changes."""

from __future__ import annotations

from datetime import datetime

from trainyard_crds.constants import child_name
from trainyard_crds.trainingjob_status import FINAL_PHASES, Phase
from trainyard_kube.paths import Object
from trainyard_operator.admission.decision import QUEUE_IDENTITY_FIELDS, QUEUE_WAITING_FIELDS, Admission
from trainyard_operator.reconcile.fields import format_time, holds
from trainyard_operator.reconcile.plan import Note
from trainyard_operator.trainingjob.children.runconfig import run_uri
from trainyard_operator.trainingjob.claim import has_claim
from trainyard_operator.trainingjob.conditions import job_conditions
from trainyard_operator.trainingjob.final_status import final_values
from trainyard_operator.trainingjob.model import Decision, Observed
from trainyard_operator.trainingjob.pods.attempts import History
from trainyard_operator.trainingjob.run_identity import RESTORING, is_restored

_MESSAGE_LIMIT = 2048
_STARTED = (*FINAL_PHASES, Phase.RUNNING)


def desired_status(
    observed: Observed, decision: Decision, history: History, admission: Admission, now: datetime
) -> Object:
    """Return the operator's share of the status after a decision; None removes a field."""
    assert decision.phase is not None
    final, resources = decision.phase in FINAL_PHASES, observed.spec.resources
    queue = _queue(observed, decision, admission)
    status: Object = {
        "observedGeneration": observed.job["metadata"].get("generation"),
        "phase": decision.phase.value,
        "message": _message(decision)[:_MESSAGE_LIMIT],
        "conditions": job_conditions(observed, decision, history, now),
        "summary": {"gpus": str(resources.gpus * resources.nodes), "queue": _position_text(queue)},
        "queue": queue,
    }
    if observed.child is not None:
        status["jobName"] = child_name(observed.name, observed.uid)
    if _has_run(observed, decision):
        status["runUri"] = run_uri(observed.job, observed.spec)
    status |= _attempt_fields(observed, history)
    if final:
        status |= {"completionTime": format_time(now), "logTail": decision.log_tail}
    if final or (history.ended_now and not history.running):
        termination = decision.termination or (history.ending.termination if history.ending else None)
        values = final_values(observed, termination, now)
        status["summary"] |= values.pop("summary")
        status |= values
    return status


def _has_run(observed: Observed, decision: Decision) -> bool:
    """Return whether the status names the run directory: its claim exists, and that of a restored job was read."""
    if observed.child is not None:
        return True
    return decision.reason not in RESTORING if is_restored(observed) else has_claim(observed)


def _queue(observed: Observed, decision: Decision, admission: Admission) -> Object | None:
    """Return `status.queue`; a job that does not wait keeps its pool and its enqueue time only."""
    known = observed.queue_status
    entry = admission.queue or known
    if not entry:
        return None
    waits = decision.phase is Phase.QUEUED
    if waits and observed.refusal is not None:
        entry = entry | {"reason": observed.refusal.reason}
    kept = entry if waits else {key: entry[key] for key in QUEUE_IDENTITY_FIELDS if key in entry}
    failed = None if decision.phase in _STARTED else decision.failed_starts or known.get("failedStarts")
    return {key: kept.get(key) for key in (*QUEUE_IDENTITY_FIELDS, *QUEUE_WAITING_FIELDS)} | {"failedStarts": failed}


def _position_text(queue: Object | None) -> str | None:
    return f"{queue['position']} of {queue['length']}" if queue and queue.get("position") else None


def _message(decision: Decision) -> str:
    """Return the message of the phase, with the warnings, so that `kubectl get -o wide` shows them."""
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
    """Return the Event of a phase transition or of a new caution; None when both are unchanged."""
    if decision.phase is None:
        return None
    if observed.status.get("phase") != decision.phase.value:
        text = f"{decision.reason}: {decision.message}"
        return Note("Warning" if decision.phase is Phase.FAILED else "Normal", decision.phase.value, text)
    caution = decision.caution
    if caution is None or holds(observed.job, caution.condition):
        return None
    return Note("Warning", caution.condition, caution.message)
