"""Whether the run can save and stop within the grace period; pure."""

from __future__ import annotations

from math import ceil


class GracePeriodMonitor:
    """Compares the longest step and the longest save so far with the grace period.

    A stop may arrive in the middle of a step while a checkpoint is being written. The step then runs to its next
    micro-batch, that checkpoint is published, and a last one is saved.
    """

    def __init__(self, grace_period_seconds: int) -> None:
        self._limit = grace_period_seconds
        self._step = 0.0
        self._save = 0.0

    def step_took(self, seconds: float) -> None:
        """Record the duration of a step."""
        self._step = max(self._step, seconds)

    def save_took(self, seconds: float) -> None:
        """Record the time from the start of a checkpoint's copy to its publication."""
        self._save = max(self._save, seconds)

    def warning(self) -> str | None:
        """Return a warning with the remedy when a step and two saves exceed the grace period, else None."""
        needed = self._step + 2 * self._save
        if needed <= self._limit:
            return None
        return (
            f"A step takes up to {self._step:.1f} s and a save {self._save:.1f} s (two if a stop arrives during one), "
            f"but checkpoints.gracePeriodSeconds is {self._limit}: an evicted or suspended pod may be killed before it "
            f"has saved. Set it to at least {ceil(2 * needed)}."
        )
