"""The tasks by name; the one place that lists them."""

from __future__ import annotations

from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.engine.definition import TaskDefinition
from trainyard_trainer.tasks.llm.definition import LLM

TASKS: dict[str, TaskDefinition] = {LLM.name: LLM}


def definition_of(config: RunConfig) -> TaskDefinition:
    """Return the definition of a run config's task.

    Raises:
        ConfigurationError: A field has a value that the task does not know.
    """
    definition = TASKS[config.task]
    definition.check(config)
    return definition
