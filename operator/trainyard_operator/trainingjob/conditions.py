"""The conditions that follow from a decision; the phase is their printed summary."""

from __future__ import annotations

from datetime import datetime

from trainyard_crds.trainingjob_status import FINAL_PHASES, Phase
from trainyard_operator.trainingjob.k8s_fields import condition, format_time
from trainyard_operator.trainingjob.model import Decision, Object, Observed
from trainyard_operator.trainingjob.pods.attempts import History

_Row = tuple[bool, str, str]
"""Status, reason, message of one condition."""

_ADMITTED_PHASES = (Phase.PENDING, Phase.STARTING, Phase.RUNNING)
_NOT_ADMITTED_PHASES = (Phase.QUEUED, Phase.SUSPENDED)
_END_CONDITION = {Phase.SUCCEEDED: "Complete", Phase.FAILED: "Failed", Phase.STOPPED: "Stopped"}


def conditions(observed: Observed, decision: Decision, history: History, now: datetime) -> list[Object]:
    """All conditions, in a fixed order; Complete, Failed, Stopped, Stalled and a caution only once they hold."""
    phase = decision.phase
    assert phase is not None
    rows = {
        "Admitted": _admitted(observed, decision),
        "Running": _running(decision, history),
        "Suspended": (phase is Phase.SUSPENDED, decision.reason if phase is Phase.SUSPENDED else "NotSuspended", ""),
        "Finished": (phase in FINAL_PHASES, phase.value if phase in FINAL_PHASES else "Unfinished", ""),
    }
    if phase in FINAL_PHASES:
        rows[_END_CONDITION[phase]] = (True, decision.reason, decision.message)
    if phase is Phase.FAILED:
        rows["Stalled"] = (True, decision.reason, decision.message)
    if decision.caution is not None:
        rows[decision.caution.condition] = (True, decision.caution.reason, decision.caution.message)
    return [_entry(observed, kind, row, now) for kind, row in rows.items() if row is not None]


def _admitted(observed: Observed, decision: Decision) -> _Row | None:
    if decision.phase in _ADMITTED_PHASES and not decision.waits:
        return True, "Admitted", ""
    if decision.phase in _NOT_ADMITTED_PHASES or decision.waits:
        return False, decision.reason, decision.message
    known = condition(observed.job, "Admitted")
    return (known["status"] == "True", known["reason"], known.get("message", "")) if known else None


def _running(decision: Decision, history: History) -> _Row:
    if decision.phase in FINAL_PHASES:
        return False, "Finished", ""
    if history.running:
        return True, "TrainerRunning", ""
    return False, decision.reason, decision.message


def _entry(observed: Observed, kind: str, row: _Row, now: datetime) -> Object:
    holds, reason, message = row
    status = "True" if holds else "False"
    known = condition(observed.job, kind)
    unchanged = known is not None and known["status"] == status
    entry: Object = {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": known["lastTransitionTime"] if known and unchanged else format_time(now),
    }
    generation = observed.job["metadata"].get("generation")
    return entry if generation is None else entry | {"observedGeneration": generation}
