"""AdamW, its learning rates, gradient clipping, and its state as tensors and JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from trainyard_trainer.engine.task import ParameterGroup

_BETAS = (0.9, 0.999)
"""As transformers and PEFT examples use; runs are short, so the slower second moment does no harm."""


def create_optimizer(groups: Sequence[ParameterGroup]) -> Optimizer:
    """AdamW over the groups, all in one kernel per step."""
    parameters = [
        {
            "name": group.name,
            "params": list(group.parameters),
            "lr": group.learning_rate,
            "weight_decay": group.weight_decay,
        }
        for group in groups
    ]
    return AdamW(parameters, betas=_BETAS, fused=True)


def set_learning_rates(optimizer: Optimizer, groups: Sequence[ParameterGroup], factor: float) -> dict[str, float]:
    """Set every group's learning rate for the next step.

    Returns:
        Metrics: `learningRate` of the first group, and `<name>LearningRate` of those with another one.
    """
    metrics = {"learningRate": groups[0].learning_rate * factor}
    for options, group in zip(optimizer.param_groups, groups, strict=True):
        options["lr"] = group.learning_rate * factor
        if group.learning_rate != groups[0].learning_rate:
            metrics[f"{group.name}LearningRate"] = options["lr"]
    return metrics


def clip_gradients(groups: Sequence[ParameterGroup], max_norm: float) -> Tensor:
    """Scale all gradients down to a global norm; 0 leaves them alone.

    Returns:
        The norm before, a scalar on the gradients' device.
    """
    parameters = [parameter for group in groups for parameter in group.parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    if max_norm > 0 and parameters:
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


def pack_optimizer(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimizer's state: tensors by `<parameter>.<key>`, and the other values likewise."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for key, value in values.items():
            (tensors if isinstance(value, Tensor) else scalars)[f"{index}.{key}"] = value
    return tensors, scalars


def unpack_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
    """Put back what `pack_optimizer` took out."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **scalars}.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
