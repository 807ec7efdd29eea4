"""Loss on held-out rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from trainyard_trainer.data.batches import TextBatches
from trainyard_trainer.group.group import Group
from trainyard_trainer.tasks.llm.loss import evaluating, summed_loss


def mean_loss(
    model: Any,
    batches: TextBatches,
    device: torch.device,
    poll: Callable[[], None] = lambda: None,
    *,
    chunk_rows: int | None = None,
    group: Group | None = None,
) -> float:
    """Mean cross-entropy per loss token, in nats.

    Leaves the model's modes and the random state as found.

    Args:
        model: A causal language model on `device`.
        batches: The rows.
        device: Where the model is.
        poll: Called before each batch; may raise.
        chunk_rows: Rows whose logits exist at a time; None computes all of a batch's at once.
        group: The processes that share the batches; all get the same mean.
    """

    def measure(index: int) -> tuple[float, float]:
        batch = batches.micro_batch(0, index).to(device)
        return float(summed_loss(model, batch, chunk_rows)), batch.num_loss_tokens

    with evaluating(model), torch.no_grad():
        return (group or Group()).mean(range(batches.num_micro_batches()), measure, poll)
