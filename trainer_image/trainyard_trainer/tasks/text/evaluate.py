"""Loss on held-out rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from trainyard_trainer.data.row_labels import named_rows
from trainyard_trainer.errors import DataError
from trainyard_trainer.group.group import Group
from trainyard_trainer.tasks.text.batches import TextBatches
from trainyard_trainer.tasks.text.loss import evaluation_mode, summed_loss


def mean_loss(
    model: Any,
    batches: TextBatches,
    device: torch.device,
    poll: Callable[[], None] = lambda: None,
    *,
    chunk_rows: int | None = None,
    group: Group | None = None,
) -> float:
    """Return the mean cross-entropy per loss token, in nats; restores the model's modes.

    Args:
        model: A causal language model on `device`.
        batches: The rows.
        device: The model's device.
        poll: Called before each batch; may raise.
        chunk_rows: Rows per chunk of logits; None computes a batch's logits at once.
        group: The processes that share the batches; all return the same mean.

    Raises:
        DataError: A batch's loss is infinite or not a number; the message names its rows where they are known.
    """
    group, suspects = group or Group(), list[tuple[str, int]]()

    def measure(index: int) -> tuple[float, float]:
        batch = batches.micro_batch(0, index).to(device)
        loss = float(summed_loss(model, batch, chunk_rows))
        if not math.isfinite(loss):
            suspects.extend(batches.origins(0, index))
        return loss, batch.loss_weight

    with evaluation_mode(model), torch.no_grad():
        mean = group.weighted_mean(range(batches.num_micro_batches()), measure, poll)
    if not math.isfinite(mean):
        found = [(file, row) for of_one in group.all_gather(sorted(suspects)) for file, row in of_one]
        _raise_for(found)
    return mean


def _raise_for(rows: Sequence[tuple[str, int]]) -> None:
    if rows:
        raise DataError(
            f"The evaluation loss is infinite or not a number in the batches of {named_rows(rows)}.",
            "Look at these rows; if they are all of the validation rows, lower optimization.learningRate, or raise "
            "optimization.warmupRatio.",
        )
