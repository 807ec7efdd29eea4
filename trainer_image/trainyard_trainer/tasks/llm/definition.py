"""The llm task as the registry lists it; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from trainyard_crds.exports import FORMATS
from trainyard_crds.runconfig import RunConfig
from trainyard_crds.tasks import MEMORY_FIELDS
from trainyard_trainer.engine.definition import TaskDefinition

if TYPE_CHECKING:
    from trainyard_trainer.engine.task import Task


def _create() -> Task:
    from trainyard_trainer.tasks.llm.task import LlmTask

    return LlmTask()


def _plan(config: RunConfig, environ: Mapping[str, str], device: int | None) -> str:
    from trainyard_trainer.tasks.llm.plan_command import plan

    return plan(config, environ, device)


_BATCH_SIZE, _LENGTH = MEMORY_FIELDS["llm"]

LLM = TaskDefinition(
    name="llm",
    settings=("method", "adapter", "quantization", "llm"),
    metrics={"evalLoss": "minimize"},
    objective="evalLoss",
    exports=FORMATS["llm"],
    memory_advice=f"Lower {_BATCH_SIZE} (and raise gradientAccumulation as much) or {_LENGTH}, "
    "use method: qlora, or a larger GPU.",
    create=_create,
    plan=_plan,
)
