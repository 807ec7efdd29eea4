"""The memory plan of a language model's run, made before its weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainyard_trainer.engine.task import RunContext
from trainyard_trainer.errors import NotFoundError
from trainyard_trainer.memory.host import free_memory
from trainyard_trainer.memory.recompute import Mode, Recompute, recomputing
from trainyard_trainer.sources.resolve import LocalModel
from trainyard_trainer.tasks.text.memory.estimate import checkpoint_copy, context_bytes, estimate, flops_per_token
from trainyard_trainer.tasks.text.memory.plan import describe, gib
from trainyard_trainer.tasks.text.memory.recompute_policy import Room, choose_recompute
from trainyard_trainer.tasks.text.memory.shape import ModelShape, read_shape


@dataclass(frozen=True)
class Planned:
    """What follows from a model's shape before it is loaded."""

    recompute: Recompute
    flops_per_token: float | None
    """None where the shape is not known."""


def plan_memory(context: RunContext, base: LocalModel) -> Planned:
    """Predict the run's peak, report it, and choose which activations are computed again.

    A model whose shape says too little trains all the same, recomputing on a GPU to be safe.
    """
    config = context.config
    try:
        shape = read_shape(base.path, base.name)
    except NotFoundError as error:
        context.log("MemoryNotPredicted", error.message)
        return Planned(_unplanned(context), None)
    room = _room(context, shape)
    found = estimate(config, shape, choose_recompute(config, shape, room))
    report = describe(found, config, shape, room)
    helps = report.advice or "use a larger GPU"
    context.memory(report, f"{helps[0].upper()}{helps[1:]}. Predicted peak: {gib(found.peak)}.")
    there = "" if room.device is None else f" of {gib(room.device)}"
    context.log("MemoryPlan", f"Predicted peak: {gib(found.peak)}{there} ({report.basis}).")
    return Planned(found.recompute, flops_per_token(config, shape))


def _unplanned(context: RunContext) -> Recompute:
    asked = context.config.optimization.recompute
    careful: Mode = "full" if context.device.type == "cuda" else "none"
    return recomputing(careful if asked == "auto" else asked, of=1, layers=1)


def _room(context: RunContext, shape: ModelShape) -> Room:
    """What is free now, before anything of the run is loaded, for this one of the processes in the container."""
    host = free_memory()
    if host is not None:
        host = max(0, host - checkpoint_copy(context.config, shape)) // context.config.processes_per_node
    if context.device.type != "cuda":
        return Room(device=host, host=host)
    # The driver's share is taken already: the plan counts it, so it belongs to the room.
    return Room(device=torch.cuda.mem_get_info(context.device)[0] + context_bytes(context.config), host=host)
