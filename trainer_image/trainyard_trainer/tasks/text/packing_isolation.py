"""Check, when a model is loaded, that rows packed into one sequence do not attend to each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainyard_trainer.tasks.text.loss import evaluation_mode
from trainyard_trainer.tasks.text.models.attention import can_use_boundaries, packed_call, use_boundaries, use_masks

_LENGTH = 8
"""Tokens of a test row."""


def isolates_packed_rows(model: Any, vocabulary: int, device: torch.device) -> bool:
    """Whether packed rows attend only to themselves in this architecture, under attention's masks.

    Runs a packed pair twice with different first rows: the second row's logits must not change. Recurrent and
    convolutional layers, for example, carry state over the boundary. Restores modes and random state.
    """
    rows, other = _pairs(vocabulary, device)
    return _are_equal(*(_logits(model, pair)[_LENGTH:] for pair in (rows, other)))


def enable_boundary_attention(model: Any, vocabulary: int, device: torch.device) -> bool:
    """Switch attention to position boundaries, if the result is that of the masks.

    Call it only where `isolates_packed_rows`. An architecture that does not pass the boundaries to its attention, or
    whose layers the kernel does not support, keeps its masks.

    Returns:
        Whether attention uses boundaries now.
    """
    if not can_use_boundaries(model):
        return False
    rows, _ = _pairs(vocabulary, device)
    masked = _logits(model, rows)
    use_boundaries(model)
    try:
        same = _are_equal(masked, _logits(model, rows))
    except (RuntimeError, ValueError, TypeError, NotImplementedError):  # the kernel or the call does not support them
        same = False
    if not same:
        use_masks(model)
    return same


def _pairs(vocabulary: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return two rows, and a pair with another first row."""
    tokens = torch.arange(3 * _LENGTH, device=device).remainder(vocabulary)
    rows, other = tokens[: 2 * _LENGTH].reshape(1, -1), tokens[_LENGTH:].flip(0).reshape(1, -1).clone()
    other[0, _LENGTH:] = rows[0, _LENGTH:]
    return rows, other


def _logits(model: Any, rows: Tensor) -> Tensor:
    """Return the logits of a packed pair, (2 * length, vocabulary)."""
    positions = torch.arange(_LENGTH, device=rows.device).repeat(2).reshape(1, -1)
    boundaries = torch.arange(3, dtype=torch.int32, device=rows.device) * _LENGTH
    with evaluation_mode(model), torch.no_grad(), packed_call(model, boundaries, _LENGTH) as options:
        logits: Tensor = model(input_ids=rows, position_ids=positions, use_cache=False, **options).logits
    return logits[0].float()


def _are_equal(one: Tensor, other: Tensor) -> bool:
    return float((one - other).abs().max()) <= 0.02 * float(one.abs().max()) + 1e-6
