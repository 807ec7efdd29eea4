"""Size of a chunk of logits; pure."""

from __future__ import annotations

_LOGITS_PER_CHUNK = 2**26
"""256 MiB in fp32: large enough for a fast matrix product, small compared with a model."""


def rows_per_chunk(vocabulary: int) -> int:
    """Return the positions of a chunk, at least 1: 512 for a vocabulary of 131 072 tokens."""
    return max(1, _LOGITS_PER_CHUNK // vocabulary)
