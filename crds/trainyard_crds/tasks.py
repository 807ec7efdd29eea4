"""The tasks, and properties of them that operator and trainer share."""

from __future__ import annotations

from typing import Literal

TaskName = Literal["llm"]

MEMORY_FIELDS: dict[TaskName, tuple[str, ...]] = {"llm": ("optimization.batchSize", "llm.maxLength")}
"""Fields of spec and RunConfig whose lower values need less memory, in the order to change them."""
