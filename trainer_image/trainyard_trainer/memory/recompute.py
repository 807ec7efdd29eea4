"""Which layers' activations the backward pass computes again; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["none", "selective", "full", "offload"]


@dataclass(frozen=True)
class Recompute:
    """One way to run the backward pass.

    Attributes:
        mode: none keeps every layer's activations; selective computes those of the first `layers` again; full those of
            all; offload too, and their inputs wait in host memory.
        layers: How many, of `of`. The first ones: their backward pass comes last, when what the others kept is gone, so
            that the layer being computed again adds nothing to the peak.
        of: Layers of the model.
    """

    mode: Mode
    layers: int
    of: int

    def __str__(self) -> str:
        """For the table, the log and the status."""
        if self.mode == "selective":
            return f"selective ({self.layers} of {self.of} layers)"
        return self.mode


def recomputing(mode: Mode, of: int, layers: int | None = None) -> Recompute:
    """A mode for a model of so many layers; selective without a number takes half of them."""
    if mode == "none":
        return Recompute(mode, 0, of)
    if mode != "selective":
        return Recompute(mode, of, of)
    return Recompute(mode, max(1, of // 2) if layers is None else layers, of)
