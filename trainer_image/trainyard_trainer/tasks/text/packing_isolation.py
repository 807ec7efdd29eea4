"""Check, when a model is loaded, that rows packed into one sequence do not attend to each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainyard_trainer.tasks.text.dependence import depends
from trainyard_trainer.tasks.text.loss import evaluation_mode
from trainyard_trainer.tasks.text.models.attention import can_use_boundaries, packed_call, use_boundaries, use_masks

_LENGTH = 8
"""Tokens of a test row."""


def isolates_packed_rows(model: Any, vocabulary: int, device: torch.device) -> bool:
    """Whether packed rows attend only to themselves in this architecture, with its attention as it is set.

    The second of two packed rows must not depend on the first; see `depends`. Recurrent and convolutional layers, for
    example, carry state over the boundary. Restores modes.
    """
    rows = _rows(vocabulary, device)
    first, second = slice(_LENGTH), slice(_LENGTH, None)
    with packed_call(model, _boundaries(device), _LENGTH) as options:
        return not depends(model, rows, logits=second, inputs=first, position_ids=_positions(device), **options)


def enable_boundary_attention(model: Any, vocabulary: int, device: torch.device) -> bool:
    """Switch attention to position boundaries, if the result is that of the masks.

    Call it only where `isolates_packed_rows`. An architecture that does not pass the boundaries to its attention, or
    whose layers the kernel does not support, keeps its masks.

    Returns:
        Whether attention uses boundaries now.
    """
    if not can_use_boundaries(model):
        return False
    rows = _rows(vocabulary, device)
    masked = _logits(model, rows)
    use_boundaries(model)
    try:
        same = _are_equal(masked, _logits(model, rows)) and isolates_packed_rows(model, vocabulary, device)
    except (RuntimeError, ValueError, TypeError, NotImplementedError):  # the kernel or the call does not support them
        same = False
    if not same:
        use_masks(model)
    return same


def _rows(vocabulary: int, device: torch.device) -> Tensor:
    """Return two packed rows, (1, 2 * length)."""
    return torch.arange(2 * _LENGTH, device=device).remainder(vocabulary)[None]


def _positions(device: torch.device) -> Tensor:
    return torch.arange(_LENGTH, device=device).repeat(2)[None]


def _boundaries(device: torch.device) -> Tensor:
    return torch.arange(3, dtype=torch.int32, device=device) * _LENGTH


def _logits(model: Any, rows: Tensor) -> Tensor:
    """Return the logits of a packed pair, (2 * length, vocabulary)."""
    device = rows.device
    with evaluation_mode(model), torch.no_grad(), packed_call(model, _boundaries(device), _LENGTH) as options:
        logits: Tensor = model(input_ids=rows, position_ids=_positions(device), use_cache=False, **options).logits
    return logits[0].float()


def _are_equal(one: Tensor, other: Tensor) -> bool:
    return float((one - other).abs().max()) <= 0.02 * float(one.abs().max()) + 1e-6
