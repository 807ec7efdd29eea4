"""Short texts for the columns of `kubectl get`, which prints numbers raw and cannot format them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_LONGEST_ETA_DAYS = 9999


def progress_text(percent: float) -> str:
    """Share of the work done, 0 to 100, rounded down: `37%`. Only a whole 100 reads 100%."""
    return f"{int(min(max(percent, 0.0), 100.0))}%"


def step_text(step: int, total_steps: int | None) -> str:
    """Optimizer steps done of all: `120/320`, or `120` while the total is unknown."""
    return str(step) if total_steps is None else f"{step}/{total_steps}"


def loss_text(loss: float) -> str:
    """A loss with three significant digits, or four where it is 1 or more: `0.0123`, `2.346`, `1.23e-06`."""
    return f"{loss:.4g}" if abs(loss) >= 1 else f"{loss:.3g}"


def eta_text(seconds: float) -> str:
    """A span of time in its two largest units: `45s`, `12m30s`, `1h12m`, `2d3h`."""
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return _pair(whole, _MINUTE, "m", 1, "s")
    if whole < _DAY:
        return _pair(whole, _HOUR, "h", _MINUTE, "m")
    if whole >= _LONGEST_ETA_DAYS * _DAY:
        return f">{_LONGEST_ETA_DAYS}d"
    return _pair(whole, _DAY, "d", _HOUR, "h")


def progress_summary(progress: Mapping[str, Any], metrics: Mapping[str, float]) -> dict[str, str | None]:
    """The part of `status.summary` that follows from progress: keys progress, step, loss, eta.

    Args:
        progress: `status.progress` as JSON (camelCase keys).
        metrics: `status.metrics` as JSON.

    Returns:
        Every key, None where the value is unknown, so a merge patch clears what no longer holds.
    """
    percent, remaining, loss = progress.get("percent"), progress.get("remainingSeconds"), metrics.get("loss")
    step, total = progress.get("step"), progress.get("totalSteps")
    return {
        "progress": None if percent is None else progress_text(percent),
        "step": None if step is None else step_text(step, total),
        "loss": None if loss is None else loss_text(loss),
        "eta": None if remaining is None else eta_text(remaining),
    }


def _pair(seconds: int, large: int, large_sign: str, small: int, small_sign: str) -> str:
    return f"{seconds // large}{large_sign}{seconds % large // small}{small_sign}"
