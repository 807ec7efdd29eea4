"""The memory plan of a language model's run, before its weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainyard_trainer.engine.task import RunContext
from trainyard_trainer.errors import NotFoundError
from trainyard_trainer.memory.host import free_memory
from trainyard_trainer.memory.recompute import Mode, Recompute, recompute_of
from trainyard_trainer.sources.resolve import LocalModel
from trainyard_trainer.tasks.text.memory.estimate import checkpoint_copy, context_bytes, estimate, flops_per_token
from trainyard_trainer.tasks.text.memory.plan import advice_text, describe, gib
from trainyard_trainer.tasks.text.memory.recompute_policy import FreeMemory, choose_recompute
from trainyard_trainer.tasks.text.memory.shape import ModelShape, read_shape


@dataclass(frozen=True)
class Planned:
    """What the model's shape decides before loading."""

    recompute: Recompute
    flops_per_token: float | None
    """None where the shape is unknown."""


def plan_memory(context: RunContext, base: LocalModel) -> Planned:
    """Predict and report the run's peak, and choose which activations to recompute.

    A model whose shape cannot be read trains without a prediction, recomputing on a GPU to be safe.
    """
    config = context.config
    try:
        shape = read_shape(base.path, base.name)
    except NotFoundError as error:
        context.log("MemoryNotPredicted", error.message)
        return Planned(_unplanned(context), None)
    free = _free_memory(context, shape)
    found = estimate(config, shape, choose_recompute(config, shape, free))
    report = describe(found, config, shape, free)
    advice = advice_text(config, shape, found.recompute) or "use a larger GPU"
    context.memory(report, f"{advice[0].upper()}{advice[1:]}. Predicted peak: {gib(found.peak)}.")
    limit = "" if free.device is None else f" of {gib(free.device)}"
    context.log("MemoryPlan", f"Predicted peak: {gib(found.peak)}{limit} ({report.basis}).")
    return Planned(found.recompute, flops_per_token(config, shape))


def _unplanned(context: RunContext) -> Recompute:
    setting = context.config.optimization.recompute
    careful: Mode = "full" if context.device.type == "cuda" else "none"
    return recompute_of(careful if setting == "auto" else setting, of=1, layers=1)


def _free_memory(context: RunContext, shape: ModelShape) -> FreeMemory:
    """Return the memory that is free for this process before the run loads anything."""
    host = free_memory()
    if host is not None:
        host = max(0, host - checkpoint_copy(context.config, shape)) // context.config.processes_per_node
    if context.device.type != "cuda":
        return FreeMemory(device=host, host=host)
    # The driver already holds its share; the plan counts it, so it is added.
    return FreeMemory(device=torch.cuda.mem_get_info(context.device)[0] + context_bytes(context.config), host=host)
