"""Final values: what the status says of progress, metrics and checkpoints once a pod has ended.

While a pod runs the gateway owns these fields and the operator writes none of them.
"""

from __future__ import annotations

from datetime import datetime

from trainyard_crds.printer_text import progress_summary
from trainyard_crds.report import CheckpointStatus, Outcome, Stage, Termination
from trainyard_kube.paths import Object
from trainyard_operator.reconcile.fields import format_time, parse_time
from trainyard_operator.trainingjob.model import Observed

_METRICS_LIMIT, _CHECKPOINTS_LIMIT = 64, 20
TERMINATION_FIELDS = ("progress", "metrics", "checkpoints", "exports", "model", "memoryEstimate")
"""Status fields that come from a termination message."""


def final_values(observed: Observed, termination: Termination | None, now: datetime) -> Object:
    """The fields to write when a pod ended, from its termination message where there is one."""
    metrics = dict(observed.status.get("metrics") or {})
    if termination is not None:
        metrics = dict([*termination.metrics.items(), *_others(metrics, termination)][:_METRICS_LIMIT])
    progress = _progress(observed.status.get("progress") or {}, termination, now)
    values: Object = {"summary": progress_summary(progress or {}, metrics)}
    if progress:
        values["progress"] = progress
    if metrics:
        values["metrics"] = metrics
    return values | (_artefacts(termination) if termination else {})


def _others(metrics: Object, termination: Termination) -> list[tuple[str, float]]:
    return [(name, value) for name, value in metrics.items() if name not in termination.metrics]


def _progress(known: Object, termination: Termination | None, now: datetime) -> Object:
    """The last progress; what only holds for a running pod (the time left) is cleared."""
    finished = termination is not None and termination.outcome is Outcome.FINISHED
    if termination is None or (termination.total_steps is None and not finished):
        # A trainer that ended before its first step knows nothing of what an earlier attempt reached.
        return known | {"remainingSeconds": None} if known else {}
    step, total = max(0, termination.step), termination.total_steps
    percent = 100.0 if finished else round(min(100.0, 100 * step / total), 1) if total and total > 0 else None
    values = {
        "stage": Stage.FINISHED.value if finished else known.get("stage", Stage.TRAINING.value),
        "step": step,
        "totalSteps": total if total is not None and total >= 0 else None,
        "epoch": termination.epoch if termination.epoch is not None and termination.epoch >= 0 else None,
        "percent": percent,
        "updatedAt": format_time(now),
    }
    same = all(known.get(key) == value for key, value in values.items() if key != "updatedAt")
    if same and "updatedAt" in known:
        values["updatedAt"] = known["updatedAt"]
    kept = {key: value for key, value in values.items() if value is not None}
    return known | kept | {"remainingSeconds": 0 if finished else None}


def _artefacts(termination: Termination) -> Object:
    values: Object = {}
    if termination.checkpoints:
        values["checkpoints"] = _checkpoints(termination.checkpoints)
    if termination.exports:
        values["exports"] = [export.to_json() for export in termination.exports[:_CHECKPOINTS_LIMIT]]
    if termination.model is not None:
        values["model"] = termination.model.to_json()
    if termination.memory_estimate is not None:
        values["memoryEstimate"] = termination.memory_estimate.to_json()
    return values


def _checkpoints(reported: list[CheckpointStatus]) -> list[Object]:
    """Newest last, each name once; one with an unreadable time would make the API server refuse the whole status."""
    by_name = {entry.name: entry.to_json() for entry in reported if _is_time(entry.created_at)}
    return list(by_name.values())[-_CHECKPOINTS_LIMIT:]


def _is_time(text: str) -> bool:
    try:
        parse_time(text)
    except ValueError:
        return False
    return True
