"""Losses since the last log line, summed on the device so that no step waits for the GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from trainyard_trainer.errors import DataError


class LossWindow:
    """Sums over the steps since the last log line, and the first step that was not finite."""

    def __init__(self, device: torch.device) -> None:
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self._num_tokens = 0
        self._grad_norm = torch.zeros((), device=device)
        self._first_bad_step = torch.zeros((), dtype=torch.int64, device=device)

    def add(self, *, step: int, loss_sum: Tensor, num_tokens: int, grad_norm: Tensor) -> None:
        """Take in a step.

        Args:
            step: Its number, 1 for the first.
            loss_sum: Sum of the loss over its loss tokens; scalar.
            num_tokens: How many those are.
            grad_norm: Norm of its gradients before clipping; scalar.
        """
        self._loss_sum += loss_sum
        self._num_tokens += num_tokens
        self._grad_norm = grad_norm.to(self._loss_sum.device)
        good = torch.isfinite(loss_sum) & torch.isfinite(self._grad_norm) | (self._first_bad_step > 0)
        self._first_bad_step = torch.where(good, self._first_bad_step, step)

    def check_finite(self) -> None:
        """Make sure that training has not diverged; waits for the GPU.

        Raises:
            DataError: A loss or a gradient was infinite or not a number.
        """
        step = int(self._first_bad_step.item())
        if step > 0:
            raise DataError(
                f"The loss or its gradient became infinite or not a number in step {step}.",
                "Lower optimization.learningRate, or raise optimization.warmupRatio; the last checkpoint is good.",
            )

    def take(self) -> dict[str, float]:
        """The metrics of the window, which starts anew; waits for the GPU.

        Raises:
            DataError: A loss or a gradient was infinite or not a number.
        """
        self.check_finite()
        metrics = {"gradNorm": float(self._grad_norm.item())}
        if self._num_tokens:
            metrics = {"loss": float(self._loss_sum.item()) / self._num_tokens, **metrics}
        self._loss_sum.zero_()
        self._num_tokens = 0
        return metrics

    def pack(self) -> tuple[Tensor, int]:
        """Loss sum and token count, to be saved."""
        return self._loss_sum, self._num_tokens

    def unpack(self, loss_sum: Tensor, num_tokens: int) -> None:
        """Put back what `pack` gave."""
        self._loss_sum.copy_(loss_sum)
        self._num_tokens = num_tokens
