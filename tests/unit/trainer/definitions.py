"""Puts a task of a test in the place of the llm task, so that run configs name it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from trainyard_trainer.engine.task import Task
from trainyard_trainer.tasks.llm.definition import LLM
from trainyard_trainer.tasks.registry import TASKS


def replace_llm(create: Callable[[], Task], patch: pytest.MonkeyPatch | None = None, **changes: Any) -> None:
    """Let run configs with `task: llm` train another task, for as long as the patch lasts, else for good."""
    definition = replace(LLM, create=create, **changes)
    if patch is None:
        TASKS[LLM.name] = definition
    else:
        patch.setitem(TASKS, LLM.name, definition)
