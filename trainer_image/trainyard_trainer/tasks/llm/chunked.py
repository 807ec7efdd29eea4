"""Cross-entropy over an output head, some rows at a time, so that the logits never exist as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of the cross-entropy of `hidden @ weight.T + bias`; scalar, fp32.

    The gradients are computed with the loss, chunk by chunk, while a chunk's logits exist, and only for what needs
    one: a frozen head costs two matrix products a chunk, as many as the plain path, and nothing is computed again.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes inputs by position
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, rows: int
    ) -> Tensor:
        """The loss.

        Args:
            ctx: Where autograd keeps the gradients.
            hidden: (N, D).
            weight: (V, D).
            bias: (V,), or None.
            labels: (N,), int64, each in 0..V-1.
            rows: Rows of a chunk.
        """
        wanted = ctx.needs_input_grad[:3]
        grads = [
            torch.zeros_like(like, dtype=dtype) if needed and like is not None else None
            for like, needed, dtype in zip(
                (hidden, weight, bias), wanted, (hidden.dtype, torch.float32, torch.float32), strict=True
            )
        ]
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(labels), rows):
            part = slice(start, start + rows)
            logits = functional.linear(hidden[part], weight, bias).float()
            total += _loss_and_gradient(logits, labels[part])
            if any(wanted):
                _accumulate(grads, logits, hidden[part], weight, part)
        ctx.save_for_backward(*grads)
        ctx.dtypes = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients kept, scaled."""
        (scale,) = grad_outputs
        scaled = [
            None if grad is None else torch.mul(grad, scale, out=torch.empty_like(grad, dtype=dtype))
            for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return (*scaled, None, None)


def _loss_and_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of the cross-entropy; the logits become its gradient by them, softmax - one-hot, in place."""
    index = torch.arange(len(labels), device=logits.device)
    normalizer = torch.logsumexp(logits, dim=-1)
    loss = (normalizer - logits[index, labels]).sum()
    logits.sub_(normalizer[:, None]).exp_()
    logits[index, labels] -= 1.0
    return loss


def _accumulate(grads: list[Tensor | None], logits: Tensor, hidden: Tensor, weight: Tensor, part: slice) -> None:
    """Add what a chunk contributes, its `logits` being their own gradient already."""
    by_hidden, by_weight, by_bias = grads
    if by_bias is not None:
        by_bias += logits.sum(0)
    gradient = logits.to(weight.dtype)
    if by_hidden is not None:
        torch.mm(gradient, weight, out=by_hidden[part])
    if by_weight is not None and by_weight.dtype == weight.dtype:
        by_weight.addmm_(gradient.T, hidden)
    elif by_weight is not None:
        by_weight += gradient.T @ hidden


@contextmanager
def loss_in_head(head: nn.Linear, positions: Tensor, labels: Tensor, rows: int) -> Iterator[None]:
    """Let the output head return the summed loss, shape (1, 1, 1), instead of logits.

    The head's own call does it, so whatever hangs on that call (a sharded head gathers its weight in it) still happens.
    """

    def forward(hidden: Tensor) -> Tensor:
        chosen = hidden.reshape(-1, hidden.shape[-1]).index_select(0, positions)
        loss: Tensor = ChunkedCrossEntropy.apply(chosen, head.weight, head.bias, labels, rows)
        return loss.reshape(1, 1, 1)

    vars(head)["forward"] = forward  # of this head alone, not of its class
    try:
        yield
    finally:
        del vars(head)["forward"]
