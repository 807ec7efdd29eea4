"""Losses since the last log line, summed on the device so that no step waits for the GPU.

Each process of a group sums its own; the sums are reduced when metrics are logged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trainyard_trainer.data.row_labels import named_rows
from trainyard_trainer.engine.step_plan import Cursor
from trainyard_trainer.engine.task import TrainData
from trainyard_trainer.errors import DataError
from trainyard_trainer.group.group import Group


class LossAccumulator:
    """Sums over the steps since the last log line, and the first micro-batch whose loss was not finite."""

    def __init__(self, device: torch.device, data: TrainData, group: Group | None = None) -> None:
        self._data = data
        self._group = group or Group()
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self._weight = 0.0
        self._grad_norm = torch.zeros((), device=device)
        self._first_bad_step = torch.zeros((), dtype=torch.int64, device=device)
        self._bad_batch = torch.full((), -1, dtype=torch.int64, device=device)
        """Number of the micro-batch within that step, from 0; -1 where only the gradient was not finite."""
        self._unchecked: dict[int, Sequence[Cursor]] = {}
        """Micro-batches by step, of the steps not checked yet."""

    def add(
        self, *, step: int, cursors: Sequence[Cursor], losses: Sequence[Tensor], loss_weight: float, grad_norm: Tensor
    ) -> None:
        """Add a step.

        Args:
            step: Its number, 1 for the first.
            cursors: Its micro-batches in this process.
            losses: Summed loss of each; scalars.
            loss_weight: Loss weight of the micro-batches of all processes.
            grad_norm: Norm of its gradients before clipping; scalar.
        """
        empty = self._loss_sum.new_zeros(0)
        summed = torch.stack(list(losses)).to(empty) if losses else empty
        self._loss_sum += summed.sum()
        self._weight += loss_weight
        self._grad_norm = grad_norm.to(self._loss_sum.device)
        self._unchecked[step] = cursors
        bad = ~torch.isfinite(summed)
        is_first = (bad.any() | ~torch.isfinite(self._grad_norm)) & (self._first_bad_step == 0)
        self._first_bad_step = torch.where(is_first, step, self._first_bad_step)
        place = torch.where(bad.any(), bad.int().argmax(), -1) if losses else self._bad_batch
        self._bad_batch = torch.where(is_first, place, self._bad_batch)

    def check_finite(self) -> None:
        """Check that training has not diverged; waits for the GPU.

        Raises:
            DataError: A loss or a gradient was infinite or not a number. The message names the rows, those of all
                processes in every process.
        """
        found = [one for one in self._group.all_gather(self._first_bad()) if one is not None]
        if not found:
            self._unchecked.clear()
            return
        step = min(one["step"] for one in found)
        of_step = [one for one in found if one["step"] == step]
        # A loss that is not finite makes the gradients of all processes not finite.
        blamed = [one for one in of_step if one["isLoss"]] or of_step
        what = "The loss" if blamed[0]["isLoss"] else "The gradient"
        rows = named_rows((file, row) for one in blamed for file, row in one["origins"])
        raise DataError(
            f"{what} became infinite or not a number in step {step}, in the batch of {rows}.",
            "Look at these rows; lower optimization.learningRate, or raise optimization.warmupRatio; the last "
            "checkpoint is good.",
        )

    def take(self) -> dict[str, float]:
        """Return the metrics since the last call and start anew; waits for the GPU.

        Raises:
            DataError: A loss or a gradient was infinite or not a number.
        """
        self.check_finite()
        metrics = {"gradNorm": float(self._grad_norm.item())}
        [loss_sum] = self._group.sum([float(self._loss_sum.item())])
        if self._weight:
            metrics = {"loss": loss_sum / self._weight, **metrics}
        self._loss_sum.zero_()
        self._weight = 0.0
        return metrics

    def pack(self) -> tuple[Tensor, float]:
        """Return loss sum and loss weight, to be saved."""
        return self._loss_sum, self._weight

    def unpack(self, loss_sum: Tensor, loss_weight: float) -> None:
        """Restore what `pack` returned."""
        self._loss_sum.copy_(loss_sum)
        self._weight = loss_weight

    def _first_bad(self) -> dict[str, Any] | None:
        """Return the first step of this process that was not finite and its rows; None when all were finite."""
        step = int(self._first_bad_step.item())
        if step == 0:
            return None
        cursors, place = self._unchecked[step], int(self._bad_batch.item())
        suspects = cursors if place < 0 else [cursors[place]]
        origins = {origin for cursor in suspects for origin in self._data.origins(cursor.epoch, cursor.index)}
        return {"step": step, "isLoss": place >= 0, "origins": sorted(origins)}
