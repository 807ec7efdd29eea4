"""LoRA's forward and backward pass in one autograd function, without PEFT's copies of inputs and outputs.

PEFT casts each input to the type of the adapter's weights, keeps that copy for the backward pass, and adds its result
in separate tensors. Here the adapter's small matrices are cast to the type of the input, as autocast does; training
still updates their fp32 values. The input is kept once, uncast, for all layers that read it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trainyard_trainer.tasks.text.models.libraries import import_bitsandbytes


def fuse_adapter(model: Any) -> int:
    """Fuse every layer that allows it; other layers, and other kinds of calls, stay with PEFT.

    Args:
        model: A model with a PEFT adapter.

    Returns:
        The number of fused layers.
    """
    layers = [module for module in model.modules() if _can_be_fused(module)]
    for layer in layers:
        layer.forward = partial(_forward, layer, layer.active_adapters[0], layer.forward)
    return len(layers)


class LoraLinear(torch.autograd.Function):
    """`base + scaling * input @ down.T @ up.T`; gradients for the input, where it needs one, and the two matrices."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes inputs by position
        ctx: Any, inputs: Tensor, down: Tensor, up: Tensor, scaling: float, base: nn.Module, weight: Tensor
    ) -> Tensor:
        """Compute the layer's output.

        Args:
            ctx: The autograd context.
            inputs: (..., columns).
            down: LoRA's A, (rank, columns).
            up: LoRA's B, (rows, rank).
            scaling: Of the adapter.
            base: The frozen layer.
            weight: Its weight: (rows, columns), or bitsandbytes' packed values.
        """
        small = inputs.flatten(0, -2) @ down.to(inputs.dtype).T
        output: Tensor = base(inputs)
        output.view(-1, output.shape[-1]).addmm_(small, up.to(inputs.dtype).T, alpha=scaling)
        ctx.save_for_backward(inputs, small, down, up, weight)
        ctx.scaling, ctx.base = scaling, base
        return output

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients; `base` itself has none."""
        inputs, small, down, up, weight = ctx.saved_tensors
        (gradient,) = (each.flatten(0, -2) for each in grad_outputs)
        by_small = (gradient @ up.to(gradient.dtype)).mul_(ctx.scaling)
        by_down = (by_small.T @ inputs.flatten(0, -2)).to(down.dtype)
        by_up = (gradient.T @ small).to(up.dtype).mul_(ctx.scaling)
        by_inputs = None
        if ctx.needs_input_grad[0]:
            by_inputs = gradient @ _dense(ctx.base, weight, gradient.dtype)
            by_inputs = by_inputs.addmm_(by_small, down.to(gradient.dtype)).view_as(inputs)
        return by_inputs, by_down, by_up, None, None, None


def _forward(layer: Any, adapter: str, plain: Callable[..., Tensor], inputs: Tensor, **options: Any) -> Tensor:
    """Call a layer: fused while its one adapter is active and no option is given."""
    is_inactive = layer.disable_adapters or layer.merged or layer.active_adapters != [adapter]
    if is_inactive or options or torch.is_autocast_enabled(inputs.device.type):
        return plain(inputs, **options)
    down, up = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    output: Tensor = LoraLinear.apply(
        inputs, down, up, layer.scaling[adapter], layer.base_layer, layer.base_layer.weight
    )
    return output


def _can_be_fused(module: nn.Module) -> bool:
    """Whether a module is a linear layer of PEFT over a frozen matrix, with one plain adapter and no dropout."""
    from peft.tuners.lora import Linear
    from peft.tuners.lora.bnb import Linear4bit

    if type(module) not in {Linear, Linear4bit}:
        return False
    layer: Any = module
    (adapter, *others) = layer.active_adapters
    is_plain = not layer.lora_variant and not layer.lora_bias[adapter] and not getattr(layer, "fan_in_fan_out", False)
    without_dropout = isinstance(layer.lora_dropout[adapter], nn.Identity)
    return bool(not others and is_plain and without_dropout and _is_frozen_matrix(layer.base_layer))


def _is_frozen_matrix(base: nn.Module) -> bool:
    known = type(base) is nn.Linear or isinstance(base, import_bitsandbytes().nn.Linear4bit)
    return known and not any(parameter.requires_grad for parameter in base.parameters())


def _dense(base: Any, weight: Any, dtype: torch.dtype) -> Tensor:
    """Return the weight as a matrix, (rows, columns)."""
    if type(base) is nn.Linear:
        dense: Tensor = weight
        return dense
    values: Tensor = import_bitsandbytes().functional.dequantize_4bit(weight.view(-1, 1), base.weight.quant_state)
    return values.to(dtype)
