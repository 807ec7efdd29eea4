"""The gradients of one optimizer step: its micro-batches shared out over the processes, summed over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainyard_trainer.engine.step_plan import Cursor
from trainyard_trainer.engine.task import Loaded, MicroBatch, RunContext, Task
from trainyard_trainer.engine.throughput import Throughput


@dataclass(frozen=True, kw_only=True)
class StepLosses:
    """Losses of a step's micro-batches."""

    cursors: Sequence[Cursor]
    """Of this process."""
    losses: Sequence[Tensor]
    """Summed loss of each of those; scalars."""
    loss_weight: float
    """Of all processes."""
    num_items: int
    """Of all processes."""


class Gradients:
    """Computes gradients.

    Args:
        task: Computes the loss.
        loaded: Its model receives the gradients.
        context: The run.
        throughput: Measures the time spent waiting for data.
    """

    def __init__(self, *, task: Task, loaded: Loaded, context: RunContext, throughput: Throughput) -> None:
        self._task = task
        self._loaded = loaded
        self._context = context
        self._group = context.group
        self._throughput = throughput
        self._parameters = [parameter for group in loaded.parameter_groups for parameter in group.parameters]

    def compute(self, cursors: Sequence[Cursor]) -> StepLosses:
        """Leave the gradient of the mean loss of all these micro-batches, by loss weight, in every parameter.

        Raises:
            StopRequested: A process of the group is to stop; the gradients are incomplete.
        """
        group, poll = self._group, self._context.stop.check
        shares = group.partition(cursors)
        with self._throughput.waiting():
            batches = [(self._loaded.train.micro_batch(cursor.epoch, cursor.index), own) for cursor, own in shares]
        counted = [batch for batch, own in batches if own]
        loss_weight, num_items = group.check_stop(
            poll, sum(batch.loss_weight for batch in counted), sum(batch.num_items for batch in counted)
        )
        losses = self._passes(batches, loss_weight=loss_weight if loss_weight > 0 else 1.0)
        group.reduce_gradients(self._parameters, is_complete=len(losses) == len(batches))
        return StepLosses(
            cursors=[cursor for cursor, own in shares if own],
            losses=losses[: len(counted)],
            loss_weight=loss_weight,
            num_items=int(num_items),
        )

    def _passes(self, batches: Sequence[tuple[MicroBatch, bool]], *, loss_weight: float) -> list[Tensor]:
        """Run forward and backward passes; fewer than there are batches when the run is to stop."""
        losses = []
        for batch, own in batches:
            if self._group.is_stopping(self._context.stop.check):
                break
            loss = self._task.loss(self._loaded, batch)
            torch.autograd.backward(loss / loss_weight if own else loss * 0.0)
            losses.append(loss.detach())
        return losses
