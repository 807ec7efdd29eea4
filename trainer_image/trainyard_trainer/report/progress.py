"""How fast a run is and how long it still takes; pure, the caller brings the time."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

_FEWEST_SAMPLES = 10
_MOST_SAMPLES = 1000
_SPAN_SECONDS = 60.0


class _Sample(NamedTuple):
    time: float
    step: int
    items: int


class Pace:
    """Recent speed of a run: over its last minute, or its last ten steps where those took longer.

    Evaluations and saves lie inside that span, so the estimate of the time left includes their share.
    """

    def __init__(self, *, time: float, step: int, items: int) -> None:
        self._samples = deque([_Sample(time, step, items)], maxlen=_MOST_SAMPLES)

    def add(self, *, time: float, step: int, items: int) -> None:
        """Take note of a finished step.

        Args:
            time: Monotonic seconds.
            step: Optimizer steps done.
            items: Items (tokens, images) trained on since the run began.
        """
        self._samples.append(_Sample(time, step, items))
        while len(self._samples) > _FEWEST_SAMPLES and time - self._samples[0].time > _SPAN_SECONDS:
            self._samples.popleft()

    @property
    def steps_per_second(self) -> float | None:
        """Recent optimizer steps per second; None before the first."""
        return self._rate(self._samples[-1].step - self._samples[0].step)

    @property
    def items_per_second(self) -> float | None:
        """Recent items per second; None before the first step."""
        return self._rate(self._samples[-1].items - self._samples[0].items)

    def remaining_seconds(self, steps_left: int) -> int | None:
        """Estimated seconds until the last step; None before the first."""
        rate = self.steps_per_second
        return None if rate is None else round(steps_left / rate)

    def _rate(self, amount: int) -> float | None:
        span = self._samples[-1].time - self._samples[0].time
        return amount / span if span > 0 and amount > 0 else None


def percent_done(step: int, total_steps: int) -> float:
    """Share of the steps done, 0 to 100, to a tenth; 100 only when all are."""
    return int(1000 * step / total_steps) / 10
