"""Speed of a run and its estimated remaining time; pure, the caller passes the time."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

_MIN_SAMPLES = 10
_MAX_SAMPLES = 1000
_SPAN_SECONDS = 60.0


class _Sample(NamedTuple):
    time: float
    step: int
    items: int


class Pace:
    """Recent speed of a run: over the last minute, or the last ten steps if those took longer.

    Evaluations and saves are part of that span, so the estimate of the remaining time includes them.
    """

    def __init__(self, *, time: float, step: int, items: int) -> None:
        self._samples = deque([_Sample(time, step, items)], maxlen=_MAX_SAMPLES)

    def add(self, *, time: float, step: int, items: int) -> None:
        """Record a finished step.

        Args:
            time: Monotonic seconds.
            step: Number of finished optimizer steps.
            items: Items (tokens, images) trained on since the run began.
        """
        self._samples.append(_Sample(time, step, items))
        while len(self._samples) > _MIN_SAMPLES and time - self._samples[0].time > _SPAN_SECONDS:
            self._samples.popleft()

    @property
    def steps_per_second(self) -> float | None:
        """Recent optimizer steps per second; None before the first step."""
        return self._rate(self._samples[-1].step - self._samples[0].step)

    @property
    def items_per_second(self) -> float | None:
        """Recent items per second; None before the first step."""
        return self._rate(self._samples[-1].items - self._samples[0].items)

    def remaining_seconds(self, steps_left: int) -> int | None:
        """Return the estimated seconds until the last step; None before the first step."""
        rate = self.steps_per_second
        return None if rate is None else round(steps_left / rate)

    def _rate(self, amount: int) -> float | None:
        span = self._samples[-1].time - self._samples[0].time
        return amount / span if span > 0 and amount > 0 else None


def percent_done(step: int, total_steps: int) -> float:
    """Return the percentage of finished steps, rounded down to a tenth; 100 only after the last step."""
    return int(1000 * step / total_steps) / 10
