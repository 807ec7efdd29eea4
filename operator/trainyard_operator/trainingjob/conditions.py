"""The conditions of a TrainingJob that follow from a decision; the phase is their printed summary."""

from __future__ import annotations

from datetime import datetime

from trainyard_crds.trainingjob_status import FINAL_CONDITION, FINAL_CONDITIONS, FINAL_PHASES, FINISHED, Phase
from trainyard_kube.paths import Object
from trainyard_operator.reconcile.conditions import STALLED, Condition, conditions, known_condition
from trainyard_operator.reconcile.fields import holds
from trainyard_operator.trainingjob.model import Decision, Observed
from trainyard_operator.trainingjob.pods.attempts import History

ADMITTED, RUNNING, SUSPENDED = "Admitted", "Running", "Suspended"
_ADMITTED_PHASES = (Phase.PENDING, Phase.STARTING, Phase.RUNNING)
_NOT_ADMITTED_PHASES = (Phase.QUEUED, Phase.SUSPENDED)


def is_final(observed: Observed) -> bool:
    """Return whether the job ended in an earlier reconcile."""
    return observed.status.get("phase") in FINAL_PHASES or any(holds(observed.job, kind) for kind in FINAL_CONDITIONS)


def job_conditions(observed: Observed, decision: Decision, history: History, now: datetime) -> list[Object]:
    """Return all conditions, in a fixed order; final ones, Stalled and a caution only when they hold."""
    phase = decision.phase
    assert phase is not None
    suspended, final = phase is Phase.SUSPENDED, phase in FINAL_PHASES
    wanted = {
        ADMITTED: _admitted(observed, decision),
        RUNNING: _running(decision, history),
        SUSPENDED: Condition(suspended, decision.reason if suspended else "NotSuspended"),
        FINISHED: Condition(final, phase.value if final else "Unfinished"),
    }
    cause = Condition(True, decision.reason, decision.message)
    if final:
        wanted[FINAL_CONDITION[phase]] = cause
    if phase is Phase.FAILED:
        wanted[STALLED] = cause
    if decision.caution is not None:
        wanted[decision.caution.condition] = Condition(True, decision.caution.reason, decision.caution.message)
    return conditions(observed, wanted, now)


def _admitted(observed: Observed, decision: Decision) -> Condition | None:
    if decision.phase in _ADMITTED_PHASES and not decision.waits:
        return Condition(True, "Admitted")
    if decision.phase in _NOT_ADMITTED_PHASES or decision.waits:
        return Condition(False, decision.reason, decision.message)
    return known_condition(observed, ADMITTED)


def _running(decision: Decision, history: History) -> Condition:
    if decision.phase in FINAL_PHASES:
        return Condition(False, "Finished")
    if history.running:
        return Condition(True, "TrainerRunning")
    return Condition(False, decision.reason, decision.message)
