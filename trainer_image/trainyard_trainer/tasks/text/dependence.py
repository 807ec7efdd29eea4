"""Which logits of a model depend on which tokens, by gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainyard_trainer.tasks.text.loss import evaluation_mode

_NEGLIGIBLE = 1e-4
"""Gradient of tokens, relative to that of the others, that counts as rounding (of a fast convolution)."""


def depends(model: Any, tokens: Tensor, *, logits: slice, inputs: slice, **options: Any) -> bool:
    """Whether the logits at some positions depend on the tokens at others.

    The gradient of the logits with respect to the embeddings of tokens that they do not depend on is zero. (Logits of
    two sequences would have to be compared with a tolerance: the experts of a mixture round differently with other
    tokens, and a weak dependence is hidden by a tolerance.) Restores modes, and accumulates no gradient.

    Args:
        model: A causal language model of transformers, with or without a PEFT adapter.
        tokens: (1, T) token ids.
        logits: Positions of the logits.
        inputs: Positions of the tokens; the logits must depend on others, too.
        options: Further arguments of the model's call.
    """
    embedded: list[Tensor] = []

    def detach(_module: object, _inputs: object, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1].clone()  # some architectures scale it in place

    handle = model.get_input_embeddings().register_forward_hook(detach)
    try:
        with evaluation_mode(model), torch.enable_grad():
            output = model(input_ids=tokens, use_cache=False, **options).logits
    finally:
        handle.remove()
    (gradient,) = torch.autograd.grad(output[0, logits].float().square().sum(), embedded[:1])
    sizes = gradient[0].float().abs().amax(dim=-1)
    return float(sizes[inputs].max()) > _NEGLIGIBLE * float(sizes.max())
