"""Learning-rate schedules; pure."""

from __future__ import annotations

from math import ceil, cos, pi
from typing import Literal


def learning_rate_factor(
    step: int, *, total_steps: int, warmup_ratio: float, scheduler: Literal["cosine", "linear", "constant"]
) -> float:
    """Return the factor of the peak learning rate in a step.

    It rises linearly over the warm-up without ever being 0, is 1 in the first step after it, and falls so that it would
    be 0 in the step after the last.

    Args:
        step: The step about to run, 1 for the first.
        total_steps: Steps of the whole run.
        warmup_ratio: Share of the steps, rounded up, that are warm-up.
        scheduler: How it falls after the warm-up.
    """
    warmup = ceil(total_steps * warmup_ratio)
    if step <= warmup:
        return step / (warmup + 1)
    done = (step - 1 - warmup) / (total_steps - warmup)
    match scheduler:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - done
        case "cosine":
            return 0.5 * (1.0 + cos(pi * done))
