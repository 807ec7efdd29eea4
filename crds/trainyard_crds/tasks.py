"""The tasks, and what the operator and the trainer both know of one."""

from __future__ import annotations

from typing import Literal

TaskName = Literal["llm"]

MEMORY_FIELDS: dict[TaskName, tuple[str, ...]] = {"llm": ("optimization.batchSize", "llm.maxLength")}
"""Fields of spec and run config whose lower values need less memory, the first to change first."""
