"""Proof, when a model is loaded, that rows packed into one sequence do not see each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainyard_trainer.tasks.llm.loss import evaluating
from trainyard_trainer.tasks.text.models.attention import can_use_boundaries, packed_call, use_boundaries, use_masks

_LENGTH = 8
"""Tokens of a row that is tried."""


def keeps_rows_apart(model: Any, vocabulary: int, device: torch.device) -> bool:
    """Whether packed rows see only themselves in this architecture, under attention's masks.

    Runs a packed pair twice with another first row: the second row's logits must stay what they were. Recurrent and
    convolutional layers, for example, carry state over the boundary. Modes and random state are left as found.
    """
    rows, other = _pairs(vocabulary, device)
    return _are_equal(*(_logits(model, pair)[_LENGTH:] for pair in (rows, other)))


def go_by_boundaries(model: Any, vocabulary: int, device: torch.device) -> bool:
    """Let attention take packed rows by their boundaries, if that gives what the masks give.

    Call it where `keeps_rows_apart`. An architecture that does not hand the boundaries on, or whose layers the kernel
    does not know, keeps its masks.

    Returns:
        Whether it goes by boundaries now.
    """
    if not can_use_boundaries(model):
        return False
    rows, _ = _pairs(vocabulary, device)
    masked = _logits(model, rows)
    use_boundaries(model)
    try:
        same = _are_equal(masked, _logits(model, rows))
    except (RuntimeError, ValueError, TypeError, NotImplementedError):  # of a kernel or a call that knows no such rows
        same = False
    if not same:
        use_masks(model)
    return same


def _pairs(vocabulary: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Two rows, and another one before the same second one."""
    tokens = torch.arange(3 * _LENGTH, device=device).remainder(vocabulary)
    rows, other = tokens[: 2 * _LENGTH].reshape(1, -1), tokens[_LENGTH:].flip(0).reshape(1, -1).clone()
    other[0, _LENGTH:] = rows[0, _LENGTH:]
    return rows, other


def _logits(model: Any, rows: Tensor) -> Tensor:
    """Of a packed pair, (2 * length, vocabulary)."""
    positions = torch.arange(_LENGTH, device=rows.device).repeat(2).reshape(1, -1)
    boundaries = torch.arange(3, dtype=torch.int32, device=rows.device) * _LENGTH
    with evaluating(model), torch.no_grad(), packed_call(model, boundaries, _LENGTH) as options:
        logits: Tensor = model(input_ids=rows, position_ids=positions, use_cache=False, **options).logits
    return logits[0].float()


def _are_equal(one: Tensor, other: Tensor) -> bool:
    return float((one - other).abs().max()) <= 0.02 * float(one.abs().max()) + 1e-6
