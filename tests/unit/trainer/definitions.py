"""Replacement of the llm task by a task of a test, for run configs with `task: llm`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from trainyard_trainer.engine.task import Task
from trainyard_trainer.tasks.llm.definition import LLM
from trainyard_trainer.tasks.registry import TASKS


def replace_llm(create: Callable[[], Task], patch: pytest.MonkeyPatch | None = None, **changes: Any) -> None:
    """Replace the llm task while the patch is active; without a patch, for the rest of the process."""
    definition = replace(LLM, create=create, **changes)
    if patch is None:
        TASKS[LLM.name] = definition
    else:
        patch.setitem(TASKS, LLM.name, definition)
