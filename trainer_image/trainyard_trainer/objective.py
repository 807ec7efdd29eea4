"""What makes one evaluation better than another; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainyard_crds.trainingjob_training import Goal


@dataclass(frozen=True)
class Objective:
    """The metric that decides the best checkpoint and early stopping."""

    metric: str
    goal: Goal

    def cost(self, metrics: Mapping[str, float]) -> float | None:
        """The metric's value as a number of which lower is better; None where it was not measured."""
        value = metrics.get(self.metric)
        if value is None:
            return None
        return value if self.goal == "minimize" else -value

    def is_better(self, value: float, best: float | None) -> bool:
        """Whether a value improves on the best one so far."""
        if best is None:
            return True
        return value < best if self.goal == "minimize" else value > best

    def no_improvement(self, best: float, evaluations: int) -> str:
        """Describe evaluations in a row without a better value than the best one."""
        comparison = "fallen below" if self.goal == "minimize" else "risen above"
        return f"{self.metric} has not {comparison} {best:.6g} in {evaluations} evaluations"
