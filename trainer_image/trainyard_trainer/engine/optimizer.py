"""The optimizers, their learning rates, gradient clipping, and their state as tensors and JSON values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from trainyard_crds.optimizers import OptimizerName
from trainyard_trainer.engine.task import ParameterGroup
from trainyard_trainer.group.sharding import full_tensor, shard_like

_BETAS = (0.9, 0.999)
"""As in transformers and PEFT examples; runs are short, so the slower second moment does no harm."""


_QUANTIZATION_MAPS = ("qmap1", "qmap2")
"""Constants that bitsandbytes keeps with every parameter's state."""


def _adamw(parameters: list[dict[str, Any]]) -> Optimizer:
    """AdamW of torch; a step is one kernel."""
    return AdamW(parameters, betas=_BETAS, fused=True)


def _adamw8bit(parameters: list[dict[str, Any]], *, is_paged: bool) -> Optimizer:
    """AdamW of bitsandbytes: tensors of at least 4096 values have 8-bit moments, with a scale for every 256 of them."""
    import bitsandbytes

    optimizer: Optimizer = bitsandbytes.optim.AdamW8bit(parameters, betas=_BETAS, is_paged=is_paged)
    return optimizer


_CREATE: Mapping[OptimizerName, Callable[[list[dict[str, Any]]], Optimizer]] = {
    "adamw": _adamw,
    "adamw8bit": partial(_adamw8bit, is_paged=False),
    "paged_adamw8bit": partial(_adamw8bit, is_paged=True),
}


def create_optimizer(groups: Sequence[ParameterGroup], name: OptimizerName = "adamw") -> Optimizer:
    """Create an optimizer over the parameter groups."""
    parameters = [
        {
            "name": group.name,
            "params": list(group.parameters),
            "lr": group.learning_rate,
            "weight_decay": group.weight_decay,
        }
        for group in groups
    ]
    return _CREATE[name](parameters)


def set_learning_rates(optimizer: Optimizer, groups: Sequence[ParameterGroup], factor: float) -> dict[str, float]:
    """Set every group's learning rate for the next step.

    Returns:
        Metrics: `learningRate` of the first group, and `<name>LearningRate` of groups with a different one.
    """
    metrics = {"learningRate": groups[0].learning_rate * factor}
    for options, group in zip(optimizer.param_groups, groups, strict=True):
        options["lr"] = group.learning_rate * factor
        if group.learning_rate != groups[0].learning_rate:
            metrics[f"{group.name}LearningRate"] = options["lr"]
    return metrics


def clip_gradients(groups: Sequence[ParameterGroup], max_norm: float) -> Tensor:
    """Scale all gradients down to a global norm; 0 leaves them unchanged.

    Returns:
        The norm before, a scalar on the gradients' device.
    """
    parameters = [parameter for group in groups for parameter in group.parameters if parameter.grad is not None]
    norm = full_tensor(
        nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    )
    if max_norm > 0 and parameters:
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


def pack_optimizer(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the optimizer's state: tensors by `<parameter>.<key>`, and the other values likewise."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for index, (_, _, parameter) in enumerate(_parameters(optimizer)):
        for key, value in optimizer.state.get(parameter, {}).items():
            if key not in _QUANTIZATION_MAPS:
                (tensors if isinstance(value, Tensor) else scalars)[f"{index}.{key}"] = value
    return tensors, scalars


def unpack_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
    """Restore what `pack_optimizer` returned."""
    state: dict[int, dict[str, Any]] = {}
    parameters = [parameter for _, _, parameter in _parameters(optimizer)]
    for name, value in {**tensors, **scalars}.items():
        index, key = name.split(".", 1)
        is_moment = isinstance(value, Tensor) and value.shape == parameters[int(index)].shape
        state.setdefault(int(index), {})[key] = shard_like(value, parameters[int(index)]) if is_moment else value
    if hasattr(optimizer, "init_state"):  # of bitsandbytes
        _fill_buffers(optimizer, state)
    else:
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _fill_buffers(optimizer: Any, state: dict[int, dict[str, Any]]) -> None:
    """Copy values into buffers that bitsandbytes allocates; its own loading would leave paged ones on the GPU."""
    for index, (group, place, parameter) in enumerate(_parameters(optimizer)):
        if index not in state:
            continue
        optimizer.init_state(optimizer.param_groups[group], parameter, group, place)
        own = optimizer.state[parameter]
        with torch.no_grad():
            for key, value in state[index].items():
                if isinstance(value, Tensor):
                    own[key].copy_(value)
                else:
                    own[key] = value


def _parameters(optimizer: Optimizer) -> Iterator[tuple[int, int, nn.Parameter]]:
    """Yield (group, place in the group, parameter) in the order of `state_dict`."""
    for number, group in enumerate(optimizer.param_groups):
        for place, parameter in enumerate(group["params"]):
            yield number, place, parameter
