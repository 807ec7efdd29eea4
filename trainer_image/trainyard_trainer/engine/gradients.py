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
    """What came of a step's micro-batches."""

    cursors: Sequence[Cursor]
    """This process's."""
    losses: Sequence[Tensor]
    """Sum of the loss over the loss tokens of each of those; scalars."""
    num_loss_tokens: int
    """Of all processes."""
    num_tokens: int
    """Real (not padded) ones, of all processes."""


class Gradients:
    """Computes gradients.

    Args:
        task: Knows the loss.
        loaded: Its model gets the gradients.
        context: The run.
        throughput: Told of waiting for data.
    """

    def __init__(self, *, task: Task, loaded: Loaded, context: RunContext, throughput: Throughput) -> None:
        self._task = task
        self._loaded = loaded
        self._context = context
        self._group = context.group
        self._throughput = throughput
        self._parameters = [parameter for group in loaded.parameter_groups for parameter in group.parameters]

    def compute(self, cursors: Sequence[Cursor]) -> StepLosses:
        """Leave the gradient of the mean loss per loss token of all these micro-batches in every parameter.

        Raises:
            StopRequested: A process of the group was asked to stop; the gradients mean nothing.
        """
        group, poll = self._group, self._context.stop.check
        shares = group.partition(cursors)
        with self._throughput.waiting():
            batches = [(self._loaded.train.micro_batch(cursor.epoch, cursor.index), own) for cursor, own in shares]
        counted = [batch for batch, own in batches if own]
        num_loss_tokens, num_tokens = group.check_stop(
            poll, sum(batch.num_loss_tokens for batch in counted), sum(batch.num_tokens for batch in counted)
        )
        losses = self._passes(batches, num_loss_tokens=max(1.0, num_loss_tokens))
        group.reduce_gradients(self._parameters, is_complete=len(losses) == len(batches))
        return StepLosses(
            cursors=[cursor for cursor, own in shares if own],
            losses=losses[: len(counted)],
            num_loss_tokens=int(num_loss_tokens),
            num_tokens=int(num_tokens),
        )

    def _passes(self, batches: Sequence[tuple[MicroBatch, bool]], *, num_loss_tokens: float) -> list[Tensor]:
        """Forward and backward passes, fewer than there are batches when the run is to stop."""
        losses = []
        for batch, own in batches:
            if self._group.is_stopping(self._context.stop.check):
                break
            loss = self._task.loss(self._loaded, batch)
            torch.autograd.backward(loss / num_loss_tokens if own else loss * 0.0)
            losses.append(loss.detach())
        return losses
