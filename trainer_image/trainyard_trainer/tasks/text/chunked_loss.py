"""Cross-entropy over an output head in chunks of rows: the logits never exist as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of the cross-entropy of `hidden @ weight.T + bias`; scalar, fp32.

    The forward pass computes the gradients too, chunk by chunk, while a chunk's logits exist, and only those needed: a
    frozen head costs two matrix products a chunk, as many as the plain path, and nothing is recomputed. The softmax is
    never materialised: its exponentials enter the products, whose small results are divided by their sums.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes inputs by position
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, rows: int
    ) -> Tensor:
        """Compute the loss and the gradients.

        Args:
            ctx: The autograd context.
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
        """Return the gradients, scaled."""
        (scale,) = grad_outputs
        scaled = [
            None if grad is None else torch.mul(grad, scale, out=torch.empty_like(grad, dtype=dtype))
            for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return (*scaled, None, None)


def _loss_and_exponentials(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropy and each row's sum of exp(logit - maximum), (N, 1); overwrites the logits."""
    greatest = logits.amax(-1, keepdim=True)
    chosen = logits.gather(-1, labels[:, None])
    sums = logits.sub_(greatest).exp_().sum(-1, keepdim=True)
    return (sums.log() + greatest - chosen).sum(), sums


class _LogitGradient:
    """Gradient of the loss by a chunk's logits, softmax - one-hot, as `values / divisors` by row.

    Args:
        exponentials: (N, V), fp32; overwritten where the products are in fp32.
        sums: (N, 1), their sums by row.
        labels: (N,).
        dtype: Type of the products; a lower one than fp32 holds the quotient itself.
    """

    def __init__(self, exponentials: Tensor, sums: Tensor, labels: Tensor, dtype: torch.dtype) -> None:
        places = labels[:, None]
        right = exponentials.gather(-1, places) - sums  # rounded once, after the difference
        if dtype == torch.float32:
            self.values, self.divisors = exponentials.scatter_(-1, places, right), sums
        else:
            quotients = torch.div(exponentials, sums, out=torch.empty_like(exponentials, dtype=dtype))
            self.values = quotients.scatter_(-1, places, (right / sums).to(dtype))
            self.divisors = torch.ones_like(sums)


def _accumulate(
    grads: list[Tensor | None], gradient: _LogitGradient, hidden: Tensor, weight: Tensor, part: slice
) -> None:
    """Add a chunk's contribution."""
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
def head_returning_loss(head: nn.Linear, positions: Tensor, labels: Tensor, rows: int) -> Iterator[None]:
    """Make the output head return the summed loss, shape (1, 1, 1), instead of logits.

    The replacement is inside the head's own call, so its hooks still run (a sharded head gathers its weight in them).
    """

    def forward(hidden: Tensor) -> Tensor:
        chosen = hidden.reshape(-1, hidden.shape[-1]).index_select(0, positions)
        loss: Tensor = ChunkedCrossEntropy.apply(chosen, head.weight, head.bias, labels, rows)
        return loss.reshape(1, 1, 1)

    vars(head)["forward"] = forward  # on this instance, not its class
    try:
        yield
    finally:
        del vars(head)["forward"]
