"""Texts of the printer columns: `kubectl get` prints numbers without formatting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_LONGEST_ETA_DAYS = 9999


def progress_text(percent: float) -> str:
    """Format a percentage, rounded down: `37%`; `100%` only for 100."""
    return f"{int(min(max(percent, 0.0), 100.0))}%"


def step_text(step: int, total_steps: int | None) -> str:
    """Format completed and total optimizer steps: `120/320`, or `120` if the total is unknown."""
    return str(step) if total_steps is None else f"{step}/{total_steps}"


def loss_text(loss: float) -> str:
    """Format a loss with three significant digits, or four from 1 upwards: `0.0123`, `2.346`, `1.23e-06`."""
    return f"{loss:.4g}" if abs(loss) >= 1 else f"{loss:.3g}"


def eta_text(seconds: float) -> str:
    """Format a duration in its two largest units: `45s`, `12m30s`, `1h12m`, `2d3h`."""
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
    """Return progress, step, loss and eta of `status.summary`.

    Args:
        progress: `status.progress` as JSON (camelCase keys).
        metrics: `status.metrics` as JSON.

    Returns:
        All four keys; None for an unknown value, so that a merge patch removes the old text.
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
