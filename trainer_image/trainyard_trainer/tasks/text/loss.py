"""Cross-entropy of a causal language model, computed only where a token carries loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainyard_trainer.tasks.text.batches import TextBatch
from trainyard_trainer.tasks.text.chunked_loss import head_returning_loss
from trainyard_trainer.tasks.text.memory.chunks import rows_per_chunk
from trainyard_trainer.tasks.text.models.attention import packed_call


def summed_loss(model: Any, batch: TextBatch, chunk_rows: int | None = None) -> Tensor:
    """Sum of the cross-entropy over the batch's loss tokens; scalar, fp32, differentiable.

    The head runs on the N positions that carry loss, not on all B * T: with completions only, that saves most of the
    largest matrix product and of the logits' memory. Only those rows' logits are cast to fp32.

    Args:
        model: A causal language model of transformers, with or without a PEFT adapter.
        batch: The batch, on the model's device.
        chunk_rows: Rows per chunk of logits, by `find_chunk_rows`; None computes them all at once.
    """
    if chunk_rows is None:
        return functional.cross_entropy(selected_logits(model, batch).float(), batch.labels, reduction="sum")
    head = _linear_head(model)
    assert head is not None
    with head_returning_loss(head, batch.loss_positions, batch.labels, chunk_rows):
        loss = _output(model, batch)
    return loss.reshape(())


def find_chunk_rows(model: Any, device: torch.device) -> int | None:
    """Return the rows per chunk of logits; None where the model changes the head's output or the head has an adapter.

    Some architectures cap, scale or cut the output of the head: then only a whole call gives the logits. A call with
    two positions shows whether they do. Restores modes and random state.
    """
    head = _linear_head(model)
    if head is None:
        return None
    given: list[tuple[Tensor, Tensor]] = []
    handle = head.register_forward_hook(lambda _head, _inputs, output: given.append((output, output.clone())))
    try:
        with evaluation_mode(model), torch.no_grad():
            logits = model(input_ids=torch.zeros((1, 2), dtype=torch.int64, device=device), use_cache=False).logits
    finally:
        handle.remove()
    untouched = len(given) == 1 and logits is given[0][0] and torch.equal(*given[0])
    return rows_per_chunk(len(head.weight)) if untouched else None


def _linear_head(model: Any) -> nn.Linear | None:
    """Return the output head where it is a plain matrix: frozen, trained, or PEFT's copy that is trained whole."""
    head = model.get_output_embeddings()
    if type(head).__name__ == "ModulesToSaveWrapper":
        head = head.modules_to_save[head.active_adapters[0]]
    return head if type(head) is nn.Linear else None


def selected_logits(model: Any, batch: TextBatch) -> Tensor:
    """Return logits at the batch's loss positions, (N, vocabulary).

    The call has no cache, and for packed rows no mask: only then attention isolates them by boundaries or by restarting
    positions.
    """
    with _head_on(model.get_output_embeddings(), batch.loss_positions):
        logits = _output(model, batch)
    return logits.reshape(len(batch.labels), -1)


def _output(model: Any, batch: TextBatch) -> Tensor:
    """Return the model's logits, made from the output of the head."""
    inputs: dict[str, Any] = {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "use_cache": False}
    if batch.attention_mask is not None:
        inputs["attention_mask"] = batch.attention_mask
    with packed_call(model, batch.boundaries, batch.longest) as options:
        logits: Tensor = model(**inputs, **options).logits
    return logits


@contextmanager
def _head_on(head: nn.Module, positions: Tensor) -> Iterator[None]:
    """Restrict the output head to some positions; the model still post-processes the logits."""

    def select(_head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, *rest = inputs
        return (hidden.reshape(1, -1, hidden.shape[-1]).index_select(1, positions), *rest)

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode in the context; every module then returns to its own mode."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
