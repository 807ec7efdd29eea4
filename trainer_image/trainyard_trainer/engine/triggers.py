"""When a run logs, evaluates, saves and stops early; pure."""

from __future__ import annotations

from trainyard_crds.runconfig import RunConfig


class Triggers:
    """The triggers of a run."""

    def __init__(self, config: RunConfig, *, total_steps: int, has_evaluation: bool) -> None:
        self._total_steps = total_steps
        self._logging_steps = config.optimization.logging_steps
        self._save_steps = config.checkpoints.every_steps
        self._save_minutes = config.checkpoints.every_minutes
        self._most_evaluations = config.evaluation.early_stopping.patience if config.evaluation.early_stopping else None
        self._evaluation_steps = (config.evaluation.every_steps or self._save_steps) if has_evaluation else None

    def logs(self, step: int) -> bool:
        """Whether metrics are logged after the step."""
        return step == self._total_steps or step % self._logging_steps == 0

    def evaluates(self, step: int) -> bool:
        """Whether the model is evaluated after the step."""
        return self._evaluation_steps is not None and (step == self._total_steps or step % self._evaluation_steps == 0)

    def saves(self, step: int, *, seconds_since_save: float) -> bool:
        """Whether a checkpoint is saved after the step."""
        is_late = self._save_minutes is not None and seconds_since_save >= 60 * self._save_minutes
        return step == self._total_steps or step % self._save_steps == 0 or is_late

    def stops_early(self, evaluations_since_best: int) -> bool:
        """Whether earlyStopping.patience evaluations in a row were no improvement."""
        return self._most_evaluations is not None and evaluations_since_best >= self._most_evaluations
