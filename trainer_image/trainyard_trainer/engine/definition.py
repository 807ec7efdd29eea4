"""What is known of a task before torch and its libraries are imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainyard_crds.runconfig import RunConfig
from trainyard_crds.trainingjob_training import Goal
from trainyard_trainer.errors import ConfigurationError
from trainyard_trainer.objective import Objective

if TYPE_CHECKING:
    from trainyard_trainer.engine.task import Task


@dataclass(frozen=True, kw_only=True)
class TaskDefinition:
    """One kind of training, as the registry lists it.

    Attributes:
        name: Value of `task` in a run config.
        settings: Blocks of the run config, beside `optimization`, that decide the final weights.
        metrics: Metrics that the task's evaluation reports, and which values of each are better.
        objective: The one of them that decides by default.
        exports: Formats that the task writes.
        memory_advice: What to change when a device's memory is too small and no memory plan was made.
        create: Import and create the task.
        plan: Predict memory: a text for a terminal, given the run config, the environment and the bytes of a device.
    """

    name: str
    settings: tuple[str, ...]
    metrics: Mapping[str, Goal]
    objective: str
    exports: tuple[str, ...]
    memory_advice: str
    create: Callable[[], Task]
    plan: Callable[[RunConfig, Mapping[str, str], int | None], str]

    def check(self, config: RunConfig) -> None:
        """Check the fields whose values depend on the task.

        Raises:
            ConfigurationError: The task has no such metric or export format.
        """
        metric = config.evaluation.metric
        if metric is not None and metric not in self.metrics:
            raise ConfigurationError(
                f"evaluation.metric is {metric}, which task {self.name} does not report.",
                f"Use one of: {', '.join(self.metrics)}.",
            )
        unknown = [export.format for export in config.exports if export.format not in self.exports]
        if unknown:
            raise ConfigurationError(
                f"exports[].format is {unknown[0]}, which task {self.name} does not write.",
                f"Use one of: {', '.join(self.exports)}.",
            )

    def objective_of(self, config: RunConfig) -> Objective:
        """Return the objective of a run: the one it names, else the task's own."""
        metric = config.evaluation.metric or self.objective
        return Objective(metric, config.evaluation.goal or self.metrics[metric])
