"""Evaluations of a run and what they decide: the best checkpoint and early stopping."""

from __future__ import annotations

import math

from trainyard_crds.report import Stage
from trainyard_trainer.engine.rng import preserved_state
from trainyard_trainer.engine.state import TrainingState
from trainyard_trainer.engine.task import Loaded, RunContext, Task
from trainyard_trainer.errors import DataError
from trainyard_trainer.objective import Objective
from trainyard_trainer.report.reporter import Reporter


class Evaluator:
    """Evaluates the model on the held-out rows.

    Args:
        task: Measures the metrics.
        loaded: Its model and data.
        context: The run.
        objective: Decides which evaluation is the best.
        reporter: Reports the metrics.
    """

    def __init__(
        self, *, task: Task, loaded: Loaded, context: RunContext, objective: Objective, reporter: Reporter
    ) -> None:
        self._task = task
        self._loaded = loaded
        self._context = context
        self._objective = objective
        self._reporter = reporter

    def evaluate(self, state: TrainingState) -> bool:
        """Evaluate at the current step.

        Returns:
            Whether this is the best evaluation of the run so far.

        Raises:
            DataError: The objective's metric is infinite or not a number.
        """
        state.evaluation = self._measure(state.step)
        state.evaluated_step = state.step
        state.metrics |= state.evaluation
        value = state.evaluation[self._objective.metric]
        is_best = self._objective.is_better(value, state.best_value)
        if is_best:
            state.best_value, state.evaluations_since_best = value, 0
        else:
            state.evaluations_since_best += 1
        self._reporter.metrics(state.evaluation)
        self._reporter.stage(Stage.TRAINING)
        return is_best

    def evaluate_baseline(self, state: TrainingState) -> None:
        """Evaluate before the first step, under names of their own: `baselineEvalLoss`."""
        measured = self._measure(state.step)
        baseline = {f"baseline{name[0].upper()}{name[1:]}": value for name, value in measured.items()}
        state.metrics |= baseline
        self._reporter.metrics(baseline)

    def _measure(self, step: int) -> dict[str, float]:
        self._reporter.stage(Stage.EVALUATING)
        with preserved_state(self._loaded.model, self._context.device):
            metrics = self._task.evaluate(self._loaded, self._context)
        if not math.isfinite(metrics[self._objective.metric]):
            raise DataError(
                f"{self._objective.metric} is infinite or not a number after step {step}.",
                "Lower optimization.learningRate, and check the validation rows.",
            )
        return metrics
