"""Loss on held-out rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from trainyard_trainer.data.batches import TextBatches
from trainyard_trainer.tasks.llm.loss import evaluating, summed_loss


def mean_loss(
    model: Any,
    batches: TextBatches,
    device: torch.device,
    poll: Callable[[], None] = lambda: None,
    *,
    chunk_rows: int | None = None,
) -> float:
    """Mean cross-entropy per loss token, in nats.

    Leaves the model's modes and the random state as found.

    Args:
        model: A causal language model on `device`.
        batches: The rows.
        device: Where the model is.
        poll: Called before each batch; may raise.
        chunk_rows: Rows whose logits exist at a time; None computes all of a batch's at once.
    """
    total, tokens = 0.0, 0
    with evaluating(model), torch.no_grad():
        for index in range(batches.num_micro_batches()):
            poll()
            batch = batches.micro_batch(0, index).to(device)
            total += float(summed_loss(model, batch, chunk_rows))
            tokens += batch.num_loss_tokens
    return total / tokens
