"""Muon in fp32: `torch.optim.Muon` multiplies in bf16, which a CPU without bf16 instructions does 50 times slower."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration in https://kellerjordan.github.io/posts/muon/."""
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised; for matrices only.

    Args:
        matrices: Parameters with two dimensions.
        lr: Learning rate of a square matrix; a tall one gets more, by the root of its ratio.
        weight_decay: Decoupled, in multiples of the learning rate.
        momentum: Share of the earlier gradients in the running mean.
    """

    def __init__(
        self, matrices: Iterable[torch.nn.Parameter], *, lr: float, weight_decay: float, momentum: float = 0.95
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._update(matrix, matrix.grad, group["lr"], group["weight_decay"], group["momentum"])

    def _update(
        self, matrix: torch.Tensor, gradient: torch.Tensor, lr: float, weight_decay: float, momentum: float
    ) -> None:
        mean = self.state[matrix].setdefault("mean", torch.zeros_like(gradient))
        mean.lerp_(gradient, 1 - momentum)
        direction = orthogonalised(gradient.lerp(mean, momentum))
        rows, columns = matrix.shape
        matrix.mul_(1 - lr * weight_decay).add_(direction, alpha=-lr * math.sqrt(max(1.0, rows / columns)))


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """Return a matrix with the same singular vectors whose singular values are near 1 (0.7 to 1.2)."""
    a, b, c = _COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    x: torch.Tensor = matrix.T if is_tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if is_tall else x
