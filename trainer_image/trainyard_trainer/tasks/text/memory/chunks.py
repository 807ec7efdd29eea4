"""How much of the logits exists at a time; pure."""

from __future__ import annotations

_LOGITS_PER_CHUNK = 2**26
"""256 MiB in fp32: large enough for the matrix product to be as fast as the whole one, small beside a model."""


def rows_per_chunk(vocabulary: int) -> int:
    """Positions whose logits are computed at a time, at least 1: 512 for a vocabulary of 131 072 tokens."""
    return max(1, _LOGITS_PER_CHUNK // vocabulary)
