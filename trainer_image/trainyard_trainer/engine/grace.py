"""Whether the run can save itself in the time a pod gets to stop; pure."""

from __future__ import annotations

from math import ceil


class GraceMeter:
    """The longest step and the longest save so far, against the grace period.

    A stop may come in a step, and while a checkpoint has just begun to be written: the step is made up to its next
    micro-batch, that checkpoint is published, and then the last one.
    """

    def __init__(self, grace_period_seconds: int) -> None:
        self._limit = grace_period_seconds
        self._step = 0.0
        self._save = 0.0

    def step_took(self, seconds: float) -> None:
        """A step was made."""
        self._step = max(self._step, seconds)

    def save_took(self, seconds: float) -> None:
        """A checkpoint was published so long after its copy was begun."""
        self._save = max(self._save, seconds)

    def warning(self) -> str | None:
        """What to change, when a step and two saves do not fit into the grace period."""
        needed = self._step + 2 * self._save
        if needed <= self._limit:
            return None
        return (
            f"A step takes up to {self._step:.1f} s and a save {self._save:.1f} s (two, when a stop finds one begun), "
            f"but checkpoints.gracePeriodSeconds is {self._limit}: an evicted or suspended pod may be killed before it "
            f"has saved. Set it to at least {ceil(2 * needed)}."
        )
