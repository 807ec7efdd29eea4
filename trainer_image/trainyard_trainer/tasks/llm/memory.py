"""The memory plan of a language model's run, made before its weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainyard_trainer.engine.task import RunContext
from trainyard_trainer.errors import NotFoundError
from trainyard_trainer.memory.estimate import Recompute, estimate, flops_per_token
from trainyard_trainer.memory.plan import advice, choose_recompute, describe, gib
from trainyard_trainer.memory.shape import read_shape
from trainyard_trainer.sources.resolve import LocalModel


@dataclass(frozen=True)
class Planned:
    """What follows from a model's shape before it is loaded."""

    recompute: Recompute
    flops_per_token: float | None
    """None where the shape is not known."""


def plan_memory(context: RunContext, base: LocalModel) -> Planned:
    """Predict the run's peak, report it, and choose whether activations are recomputed.

    A model whose shape says too little trains all the same, recomputing on a GPU to be safe.
    """
    config, on_gpu = context.config, context.device.type == "cuda"
    try:
        shape = read_shape(base.path, base.name)
    except NotFoundError as error:
        context.log("MemoryNotPredicted", error.message)
        return Planned("full" if on_gpu else "none", None)
    free = torch.cuda.mem_get_info(context.device)[0] if on_gpu else None
    recompute = choose_recompute(config, shape, free)
    found = estimate(config, shape, recompute)
    helps = "; ".join(advice(config, shape, recompute)) or "use a larger GPU"
    sentence = f"{helps[0].upper()}{helps[1:]}. Predicted peak: {gib(found.peak)}."
    context.memory(describe(found, config), sentence)
    context.log("MemoryPlan", f"Predicted peak: {gib(found.peak)} ({describe(found, config).basis}).")
    return Planned(recompute, flops_per_token(config, shape))
