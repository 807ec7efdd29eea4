"""Recompute modes (activation checkpointing): which layers' activations the backward pass recomputes; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["none", "selective", "full", "offload"]


@dataclass(frozen=True)
class Recompute:
    """One way to run the backward pass.

    Attributes:
        mode: none keeps every layer's activations; selective recomputes those of the first `layers`; full those of all;
            offload too, with the layers' inputs in host memory.
        layers: Number of recomputed layers. They are the first ones: their backward pass comes last, when the kept
            activations of the others are freed, so that recomputing adds nothing to the peak.
        of: Layers of the model.
    """

    mode: Mode
    layers: int
    of: int

    def __str__(self) -> str:
        """The text for the table, the log and the status."""
        if self.mode == "selective":
            return f"selective ({self.layers} of {self.of} layers)"
        return self.mode


def recompute_of(mode: Mode, of: int, layers: int | None = None) -> Recompute:
    """Return a mode for a model of so many layers; selective without a number takes half of them."""
    if mode == "none":
        return Recompute(mode, 0, of)
    if mode != "selective":
        return Recompute(mode, of, of)
    return Recompute(mode, max(1, of // 2) if layers is None else layers, of)
