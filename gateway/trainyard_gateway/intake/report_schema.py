"""Parses and validates the two report bodies of the intake into one `ReportUpdate`; pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from trainyard_crds.printer_text import progress_summary
from trainyard_crds.report import KubeflowMetric, KubeflowReport, Report, Stage
from trainyard_gateway.intake.errors import ReportRejectedError

BODY_LIMIT = 64 * 1024
"""Largest body in bytes; a report whose lists are all full is about a third of it."""
FUTURE_LIMIT = timedelta(minutes=5)
"""Accepted clock skew of a node ahead of the gateway."""
METRICS_LIMIT = 64
_PARTS = ("gpus", "checkpoints", "memoryEstimate", "invalidRows")
"""Status fields that a report sets beside progress and metrics."""
_LARGEST_INTEGER = 2**53
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_METRIC = re.compile(r"[A-Za-z][-\w./@]{0,62}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class ReportUpdate:
    """The validated content of one report.

    Attributes:
        order: Increases from one report of a pod to the next; None if the body has no such value.
        progress: `status.progress` (JSON).
        metrics: `status.metrics`.
        parts: the fields in `_PARTS` (JSON) if the body has them.
        partial: Whether `progress` omits unchanged fields, as a Kubeflow body does.
    """

    order: float | None
    progress: Mapping[str, Any]
    metrics: Mapping[str, float]
    parts: Mapping[str, Any] = field(default_factory=dict)
    partial: bool = False

    def status_fields(self, previous: Mapping[str, Any]) -> dict[str, Any]:
        """Return the status fields owned by the gateway.

        Args:
            previous: The same fields after the last report; a partial update inherits from them.
        """
        progress = dict(self.progress)
        if self.partial:
            inherited = {key: value for key, value in previous.get("progress", {}).items() if key not in _VOLATILE}
            progress = inherited | progress
        summary = progress_summary(progress, self.metrics)
        return {"progress": progress, "metrics": dict(self.metrics), **self.parts, "summary": summary}


_VOLATILE = ("remainingSeconds", "stepsPerSecond", "tokensPerSecond")


def parse_report(body: bytes, now: datetime) -> ReportUpdate:
    """Parse a `Report`.

    Raises:
        ReportRejectedError: 400 or 422, the body is invalid.
    """
    report = _parse(Report, body)
    _reject_duplicates([checkpoint.name for checkpoint in report.checkpoints])
    _reject_metric_names(list(report.metrics), "metrics")
    for index, checkpoint in enumerate(report.checkpoints):
        _reject_metric_names(list(checkpoint.metrics), f"checkpoints.{index}.metrics")
    document = report.to_json()
    for index, entry in enumerate(document["checkpoints"]):
        entry["createdAt"] = _time(entry["createdAt"], now, f"checkpoints.{index}.createdAt")
    progress = document["progress"]
    progress["updatedAt"] = _time(progress.get("updatedAt"), now, "progress.updatedAt")
    parts: dict[str, Any] = {name: document[name] for name in _PARTS if name in document}
    return ReportUpdate(report.sequence, progress, document["metrics"], parts)


def parse_kubeflow_report(body: bytes, now: datetime) -> ReportUpdate:
    """Parse a Kubeflow Trainer status body: metric texts become numbers, step and epoch counters become progress.

    A metric that is not a finite number is omitted, because the logging script cannot avoid it.

    Raises:
        ReportRejectedError: 400 or 422, the body is invalid.
    """
    status = _parse(KubeflowReport, body).trainer_status
    stamp = _time(status.last_updated_time, now, "trainerStatus.lastUpdatedTime")
    numbers = _numbers(status.metrics)
    counters = {
        "step": _count(numbers.pop("current_step", None)),
        "totalSteps": _count(numbers.pop("total_steps", None)),
        "epoch": numbers.pop("current_epoch", None),
        "percent": status.progress_percentage,
        "remainingSeconds": status.estimated_remaining_seconds,
    }
    if status.progress_percentage == 0 and counters["step"] is None:
        counters["step"] = 0  # the first report of a run
    # The body's own percentage stays at 99 until the end; the counters are exact.
    if counters["step"] is not None and counters["totalSteps"]:
        counters["percent"] = min(100.0, 100.0 * counters["step"] / counters["totalSteps"])
    # The body has no failed or stopped state and reports 100 % however training ended: it is progress, not a result.
    known = {key: value for key, value in counters.items() if value is not None}
    progress = {"stage": str(Stage.TRAINING), "updatedAt": stamp, **known}
    metrics = {_camel(name): value for name, value in numbers.items() if _METRIC.fullmatch(name)}
    order = None if status.last_updated_time is None else _moment(status.last_updated_time).timestamp()
    return ReportUpdate(order, progress, dict(list(metrics.items())[:METRICS_LIMIT]), partial=True)


def _parse(model: type[M], body: bytes) -> M:
    if not body:
        raise ReportRejectedError(
            400, "EmptyBody", "the body is empty; send a JSON object with Content-Type: application/json"
        )
    try:
        document = json.loads(body, parse_constant=_no_number)
        _check_values(document, "")
    except (ValueError, RecursionError) as error:
        detail = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ReportRejectedError(400, "InvalidJson", f"the body is not a JSON document: {detail}") from error
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise _invalid(place, first["msg"][:1].lower() + first["msg"][1:]) from error


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number in JSON; leave the value out")


def _check_values(value: object, place: str) -> None:
    """Reject values that pass the schema but that the API server rejects or a terminal interprets."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            _check_values(key, place)
            _check_values(entry, f"{place}.{key}".lstrip("."))
    elif isinstance(value, str):
        if _CONTROL.search(value):
            raise _invalid(place, "the text contains control characters; remove them")
    elif isinstance(value, Sequence):
        for index, entry in enumerate(value):
            _check_values(entry, f"{place}.{index}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise _invalid(place, "the number is too large; leave the value out")
    elif isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        raise _invalid(place, f"the number is larger than {_LARGEST_INTEGER}; leave the value out")


def _reject_duplicates(names: list[str]) -> None:
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate is not None:
        raise _invalid("checkpoints", f"the name '{duplicate}' appears twice; list every checkpoint once")


def _reject_metric_names(names: list[str], place: str) -> None:
    wrong = next((name for name in names if not _METRIC.fullmatch(name)), None)
    if wrong is not None:
        remedy = "a metric name starts with a letter and has at most 63 letters, digits, '_', '-', '.', '/' or '@'"
        raise _invalid(place, f"'{wrong[:63]}' is not a metric name; {remedy}")


def _invalid(place: str, problem: str) -> ReportRejectedError:
    return ReportRejectedError(422, "InvalidBody", f"the report is not valid at {place}: {problem}")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _time(text: str | None, now: datetime, place: str) -> str:
    """Return a timestamp in the Kubernetes format; `now` if there is none."""
    if text is None:
        return _format(now)
    if not _TIME.fullmatch(text):
        raise _invalid(place, "the value is not an RFC 3339 time with a zone, for example 2026-01-31T12:00:00Z")
    try:
        moment = _moment(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise _invalid(place, "the date or time does not exist") from error
    if moment > now + FUTURE_LIMIT:
        minutes = int(FUTURE_LIMIT.total_seconds() / 60)
        raise _invalid(place, f"the time is more than {minutes} minutes in the future; set the clock of the node")
    return _format(moment)


def _format(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _numbers(metrics: Sequence[KubeflowMetric]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for metric in metrics:
        try:
            value = float(metric.value)
        except ValueError:
            continue
        if math.isfinite(value):
            numbers[metric.name] = value
    return numbers


def _count(value: float | None) -> int | None:
    return int(value) if value is not None and 0 <= value <= _LARGEST_INTEGER else None


def _camel(name: str) -> str:
    return re.sub(r"_+([A-Za-z0-9])", lambda match: match[1].upper(), name)
