"""The two bodies of the intake, read into one `Update`: pure, and strict about what comes from outside."""

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
from trainyard_gateway.errors import Refusal

BODY_LIMIT = 64 * 1024
"""Largest body in bytes; a report with every list full has about a third of it."""
FUTURE_LIMIT = timedelta(minutes=5)
"""How far the clock of a node may be ahead of ours."""
METRICS_LIMIT = 64
_LARGEST_INTEGER = 2**53
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_METRIC = re.compile(r"[A-Za-z][-\w./@]{0,62}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Update:
    """What one report says, ready for the status.

    Attributes:
        order: Grows from one report of a pod to the next; None when the body has nothing of the kind.
        progress: `status.progress` (JSON).
        metrics: `status.metrics`.
        parts: `gpus`, `checkpoints` and `memoryEstimate` (JSON) where the body knows them.
        partial: Whether `progress` lacks what did not change, as a Kubeflow body does.
    """

    order: float | None
    progress: Mapping[str, Any]
    metrics: Mapping[str, float]
    parts: Mapping[str, Any] = field(default_factory=dict)
    partial: bool = False

    def share(self, before: Mapping[str, Any]) -> dict[str, Any]:
        """The gateway's parts of the status.

        Args:
            before: The same parts as reported last; a partial update goes on from them.
        """
        progress = dict(self.progress)
        if self.partial:
            carried = {key: value for key, value in before.get("progress", {}).items() if key not in _VOLATILE}
            progress = carried | progress
        summary = progress_summary(progress, self.metrics)
        return {"progress": progress, "metrics": dict(self.metrics), **self.parts, "summary": summary}


_VOLATILE = ("remainingSeconds", "stepsPerSecond", "tokensPerSecond")


def report_update(body: bytes, now: datetime) -> Update:
    """Read a `Report`.

    Raises:
        Refusal: 400 or 422, the body is not one.
    """
    report = _parse(Report, body)
    _refuse_repeats([checkpoint.name for checkpoint in report.checkpoints])
    _refuse_names(list(report.metrics), "metrics")
    for index, checkpoint in enumerate(report.checkpoints):
        _refuse_names(list(checkpoint.metrics), f"checkpoints.{index}.metrics")
    document = report.to_json()
    for index, entry in enumerate(document["checkpoints"]):
        entry["createdAt"] = _time(entry["createdAt"], now, f"checkpoints.{index}.createdAt")
    progress = document["progress"]
    progress["updatedAt"] = _time(progress.get("updatedAt"), now, "progress.updatedAt")
    parts: dict[str, Any] = {
        name: document[name] for name in ("gpus", "checkpoints", "memoryEstimate") if name in document
    }
    return Update(report.sequence, progress, document["metrics"], parts)


def kubeflow_update(body: bytes, now: datetime) -> Update:
    """Read a Kubeflow Trainer status body: text metrics become numbers, the counters among them progress.

    A metric that is no finite number is left out: the script that logs it cannot do otherwise.

    Raises:
        Refusal: 400 or 422, the body is not one.
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
        counters["step"] = 0  # how a run begins
    # The body's own percentage stops at 99 until the end; the counters know better.
    if counters["step"] is not None and counters["totalSteps"]:
        counters["percent"] = min(100.0, 100.0 * counters["step"] / counters["totalSteps"])
    # It has no failed or stopped state and says 100 % however training ended: this is progress, never the result.
    known = {key: value for key, value in counters.items() if value is not None}
    progress = {"stage": str(Stage.TRAINING), "updatedAt": stamp, **known}
    metrics = {_camel(name): value for name, value in numbers.items() if _METRIC.fullmatch(name)}
    order = None if status.last_updated_time is None else _moment(status.last_updated_time).timestamp()
    return Update(order, progress, dict(list(metrics.items())[:METRICS_LIMIT]), partial=True)


def _parse(model: type[M], body: bytes) -> M:
    if not body:
        raise Refusal(400, "EmptyBody", "the body is empty; send a JSON object with Content-Type: application/json")
    try:
        document = json.loads(body, parse_constant=_no_number)
        _check_values(document, "")
    except (ValueError, RecursionError) as error:
        detail = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Refusal(400, "InvalidJson", f"the body is not a JSON document: {detail}") from error
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise _invalid(place, first["msg"][:1].lower() + first["msg"][1:]) from error


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number in JSON; leave the value out")


def _check_values(value: object, place: str) -> None:
    """Refuse what the schema would let through and the API server would not, or a terminal would act on."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            _check_values(key, place)
            _check_values(entry, f"{place}.{key}".lstrip("."))
    elif isinstance(value, str):
        if _CONTROL.search(value):
            raise _invalid(place, "a text holds control characters; remove them")
    elif isinstance(value, Sequence):
        for index, entry in enumerate(value):
            _check_values(entry, f"{place}.{index}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise _invalid(place, "the number is too large; leave the value out")
    elif isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        raise _invalid(place, f"the number is larger than {_LARGEST_INTEGER}; leave the value out")


def _refuse_repeats(names: list[str]) -> None:
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise _invalid("checkpoints", f"the name '{repeated}' stands there twice; give every checkpoint once")


def _refuse_names(names: list[str], place: str) -> None:
    wrong = next((name for name in names if not _METRIC.fullmatch(name)), None)
    if wrong is not None:
        remedy = "a metric's name starts with a letter and has at most 63 letters, digits, '_', '-', '.', '/' or '@'"
        raise _invalid(place, f"'{wrong[:63]}' is not a metric's name; {remedy}")


def _invalid(place: str, problem: str) -> Refusal:
    return Refusal(422, "InvalidBody", f"the report is not valid at {place}: {problem}")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _time(text: str | None, now: datetime, place: str) -> str:
    """A time stamp as Kubernetes writes it; now where there is none."""
    if text is None:
        return _format(now)
    if not _TIME.fullmatch(text):
        raise _invalid(place, "it is not an RFC 3339 time with a zone, for example 2026-01-31T12:00:00Z")
    try:
        moment = _moment(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise _invalid(place, "there is no such time") from error
    if moment > now + FUTURE_LIMIT:
        minutes = int(FUTURE_LIMIT.total_seconds() / 60)
        raise _invalid(place, f"it lies more than {minutes} minutes ahead; set the clock of the node")
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
