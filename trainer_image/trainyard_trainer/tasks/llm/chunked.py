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
    The softmax is never written: its exponentials go into the products, whose small results are divided by their sums.
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
            loss, sums = _loss_and_exponentials(logits, labels[part])
            total += loss
            if any(wanted):
                _accumulate(grads, _LogitGradient(logits, sums, labels[part], weight.dtype), hidden[part], weight, part)
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


def _loss_and_exponentials(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the cross-entropy, and each row's sum of exp(logit - maximum), (N, 1), which the logits become."""
    greatest = logits.amax(-1, keepdim=True)
    chosen = logits.gather(-1, labels[:, None])
    sums = logits.sub_(greatest).exp_().sum(-1, keepdim=True)
    return (sums.log() + greatest - chosen).sum(), sums


class _LogitGradient:
    """The loss's gradient by a chunk's logits, softmax - one-hot, as `values / divisors` by row.

    Args:
        exponentials: (N, V), fp32; overwritten where the products are made in fp32.
        sums: (N, 1), theirs by row.
        labels: (N,).
        dtype: Type that the products are made in; a lower one than fp32 holds the quotient itself.
    """

    def __init__(self, exponentials: Tensor, sums: Tensor, labels: Tensor, dtype: torch.dtype) -> None:
        places = labels[:, None]
        right = exponentials.gather(-1, places) - sums  # rounded after the difference: it is small where learned
        if dtype == torch.float32:
            self.values, self.divisors = exponentials.scatter_(-1, places, right), sums
        else:
            quotients = torch.div(exponentials, sums, out=torch.empty_like(exponentials, dtype=dtype))
            self.values = quotients.scatter_(-1, places, (right / sums).to(dtype))
            self.divisors = torch.ones_like(sums)


def _accumulate(
    grads: list[Tensor | None], gradient: _LogitGradient, hidden: Tensor, weight: Tensor, part: slice
) -> None:
    """Add what a chunk contributes."""
    by_hidden, by_weight, by_bias = grads
    if by_bias is not None:
        by_bias += (gradient.values.float().T @ gradient.divisors.reciprocal()).reshape(-1)
    if by_hidden is not None:
        torch.mm(gradient.values, weight, out=by_hidden[part])
        by_hidden[part].div_(gradient.divisors)
    if by_weight is not None:
        divided = (hidden / gradient.divisors).to(weight.dtype)
        if by_weight.dtype == weight.dtype:
            by_weight.addmm_(gradient.values.T, divided)
        else:
            by_weight += gradient.values.T @ divided


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
