"""The difference between an exported model and the trained one: their logits on a few rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainyard_trainer.tasks.text.batches import TextBatch

_ROWS, _TOKENS = 4, 256
_LARGE = 0.1
"""Mean difference above which an export answers otherwise, in standard deviations of the trained model's logits."""


@dataclass(frozen=True, kw_only=True)
class LogitDiff:
    """Differences of the logits, over `tokens` positions."""

    tokens: int
    maximum: float
    mean: float
    """Of the absolute differences."""
    same_top: float
    """Share of positions whose most likely token is the same."""
    relative: float
    """`mean`, in standard deviations of the trained model's logits."""

    @property
    def is_large(self) -> bool:
        """Whether the exported model answers otherwise than the trained one."""
        return not self.relative <= _LARGE

    @property
    def facts(self) -> dict[str, float]:
        """The numbers for the export's record."""
        return {
            "tokens": self.tokens,
            "maximum": self.maximum,
            "mean": self.mean,
            "relative": self.relative,
            "sameTopToken": self.same_top,
        }

    @property
    def sentence(self) -> str:
        """The sentence for the log and the status."""
        return (
            f"Its logits differ from the trained model's by {self.mean:.2g} on average and {self.maximum:.2g} at most "
            f"({self.tokens} tokens); the most likely token is the same at {self.same_top:.1%} of them."
        )


def probe_of(batch: TextBatch) -> TextBatch:
    """Return the beginning of a batch: at most 4 rows of at most 256 tokens."""
    mask = batch.attention_mask
    return TextBatch(
        input_ids=batch.input_ids[:_ROWS, :_TOKENS],
        position_ids=batch.position_ids[:_ROWS, :_TOKENS],
        attention_mask=None if mask is None else mask[:_ROWS, :_TOKENS],
        loss_positions=batch.loss_positions[:0],
        labels=batch.labels[:0],
        num_tokens=batch.input_ids[:_ROWS, :_TOKENS].numel(),
    )


def logits_of(model: Any, probe: TextBatch) -> Tensor:
    """Return logits of the probe's real tokens, (tokens, vocabulary), fp32, on the CPU; restores the model's mode."""
    device, was_training = next(model.parameters()).device, model.training
    batch = probe.to(device)
    model.eval()
    try:
        with torch.no_grad():
            output = model(
                input_ids=batch.input_ids,
                position_ids=batch.position_ids,
                attention_mask=batch.attention_mask,
                use_cache=False,
            )
    finally:
        model.train(was_training)
    logits: Tensor = output.logits.float().cpu()
    flat = logits.reshape(-1, logits.shape[-1])
    return flat if probe.attention_mask is None else flat[probe.attention_mask.reshape(-1).bool()]


def measure(trained: Any, load_exported: Callable[[], Any], probe: TextBatch) -> LogitDiff:
    """Compare two models; the second one is loaded after the first is evaluated."""
    wanted = logits_of(trained, probe)
    found = logits_of(load_exported(), probe)
    difference = (wanted - found).abs()
    same = (wanted.argmax(-1) == found.argmax(-1)).float().mean()
    return LogitDiff(
        tokens=len(wanted),
        maximum=float(difference.max()),
        mean=float(difference.mean()),
        same_top=float(same),
        relative=float(difference.mean() / wanted.std()),
    )
