"""Cross-entropy of a causal language model, computed only where a token carries loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainyard_trainer.data.batches import TextBatch


def summed_loss(model: Any, batch: TextBatch) -> Tensor:
    """Sum of the cross-entropy over the batch's loss tokens; scalar, fp32, differentiable.

    The head runs on the N positions that carry loss, not on all B * T: with completions only, most of the largest
    matrix product and of the logits' memory is saved. Logits are raised to fp32 for those rows alone.

    Args:
        model: A causal language model of transformers, with or without a PEFT adapter.
        batch: The batch, on the model's device.
    """
    logits = selected_logits(model, batch)
    return functional.cross_entropy(logits.float(), batch.labels, reduction="sum")


def selected_logits(model: Any, batch: TextBatch) -> Tensor:
    """Logits at the batch's loss positions, (N, vocabulary).

    Without a cache and without a mask, attention keeps packed rows apart by their restarting positions alone; with
    either of them it would not.
    """
    inputs = {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "use_cache": False}
    if batch.attention_mask is not None:
        inputs["attention_mask"] = batch.attention_mask
    with _head_on(model.get_output_embeddings(), batch.loss_positions):
        logits: Tensor = model(**inputs).logits
    return logits.reshape(len(batch.labels), -1)


@contextmanager
def _head_on(head: nn.Module, positions: Tensor) -> Iterator[None]:
    """Let the output head see only some positions; what a model does to its logits afterwards still happens."""

    def select(_head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, *rest = inputs
        return (hidden.reshape(1, -1, hidden.shape[-1]).index_select(1, positions), *rest)

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def keeps_rows_apart(model: Any, vocabulary: int, device: torch.device) -> bool:
    """Whether packed rows see only themselves in this architecture.

    Runs a packed pair twice with another first row: the second row's logits must stay what they were. Recurrent and
    convolutional layers, for example, carry state over the boundary. Modes and random state are left as found.
    """
    length = 8
    tokens = torch.arange(3 * length, device=device).remainder(vocabulary)
    rows, other = tokens[: 2 * length].reshape(1, -1), tokens[length:].flip(0).reshape(1, -1).clone()
    other[0, length:] = rows[0, length:]
    positions = torch.arange(length, device=device).repeat(2).reshape(1, -1)
    with evaluating(model), torch.no_grad():
        first, second = (
            model(input_ids=ids, position_ids=positions, use_cache=False).logits[0, length:].float()
            for ids in (rows, other)
        )
    tolerance = 0.02 * float(first.abs().max()) + 1e-6
    return float((first - second).abs().max()) <= tolerance


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every module gets its own mode back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
