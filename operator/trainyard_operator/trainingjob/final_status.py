"""Final values of progress, metrics, checkpoints and exports, once a pod has ended.

While a pod runs the gateway owns these fields and the operator writes none of them.
"""

from __future__ import annotations

from datetime import datetime

from trainyard_crds.printer_text import progress_summary
from trainyard_crds.report import CheckpointStatus, Outcome, Stage, Termination
from trainyard_kube.paths import Object
from trainyard_operator.reconcile.fields import format_time, parse_time
from trainyard_operator.trainingjob.model import Observed

_METRICS_LIMIT, _CHECKPOINTS_LIMIT, _EXPORTS_LIMIT = 64, 20, 20
TERMINATION_FIELDS = ("progress", "metrics", "checkpoints", "exports", "model", "memoryEstimate", "invalidRows")
"""Status fields that come from a termination message."""


def final_values(observed: Observed, termination: Termination | None, now: datetime) -> Object:
    """Return the fields to write when a pod ended, from its termination message where there is one."""
    metrics = dict(observed.status.get("metrics") or {})
    if termination is not None:
        others = [(name, value) for name, value in metrics.items() if name not in termination.metrics]
        metrics = dict([*termination.metrics.items(), *others][:_METRICS_LIMIT])
    progress = _progress(observed.status.get("progress") or {}, termination, now)
    values: Object = {"summary": progress_summary(progress or {}, metrics)}
    if progress:
        values["progress"] = progress
    if metrics:
        values["metrics"] = metrics
    return values | (_artefacts(termination) if termination else {})


def _progress(known: Object, termination: Termination | None, now: datetime) -> Object:
    """Return the last progress; the remaining time, which only a running pod has, is cleared."""
    if termination is None or not _reached_training(termination):
        # What an earlier attempt reached stays.
        return known | {"remainingSeconds": None} if known else {}
    values = _reported_progress(known, termination)
    unchanged = all(known.get(key) == value for key, value in values.items()) and "updatedAt" in known
    values["updatedAt"] = known["updatedAt"] if unchanged else format_time(now)
    kept = {key: value for key, value in values.items() if value is not None}
    return known | kept | {"remainingSeconds": 0 if _is_finished(termination) else None}


def _reported_progress(known: Object, termination: Termination) -> Object:
    stage = Stage.FINISHED.value if _is_finished(termination) else known.get("stage", Stage.TRAINING.value)
    return {
        "stage": stage,
        "step": max(0, termination.step),
        "totalSteps": _at_least_zero(termination.total_steps),
        "epoch": _at_least_zero(termination.epoch),
        "percent": _percent(termination),
    }


def _percent(termination: Termination) -> float | None:
    if _is_finished(termination):
        return 100.0
    total = termination.total_steps
    if total is None or total <= 0:
        return None
    return round(min(100.0, 100 * max(0, termination.step) / total), 1)


def _is_finished(termination: Termination) -> bool:
    return termination.outcome is Outcome.FINISHED


def _reached_training(termination: Termination) -> bool:
    """Return whether the trainer determined its number of steps, so that its step count is meaningful."""
    return termination.total_steps is not None or _is_finished(termination)


def _at_least_zero(value: float | None) -> float | None:
    return value if value is not None and value >= 0 else None


def _artefacts(termination: Termination) -> Object:
    values: Object = {}
    if termination.checkpoints:
        values["checkpoints"] = _checkpoints(termination.checkpoints)
    if termination.exports:
        values["exports"] = [export.to_json() for export in termination.exports[:_EXPORTS_LIMIT]]
    if termination.model is not None:
        values["model"] = termination.model.to_json()
    if termination.memory_estimate is not None:
        values["memoryEstimate"] = termination.memory_estimate.to_json()
    if termination.invalid_rows is not None:
        values["invalidRows"] = termination.invalid_rows.to_json()
    return values


def _checkpoints(reported: list[CheckpointStatus]) -> list[Object]:
    """Return the newest checkpoints, each name once; an unreadable time would make the API server refuse the status."""
    by_name = {entry.name: entry.to_json() for entry in reported if _is_time(entry.created_at)}
    return list(by_name.values())[-_CHECKPOINTS_LIMIT:]


def _is_time(text: str) -> bool:
    try:
        parse_time(text)
    except ValueError:
        return False
    return True
