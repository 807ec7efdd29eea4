"""Which rows are held out."""

from __future__ import annotations

from collections.abc import Sequence


def held_out(digests: Sequence[bytes], fraction: float) -> list[bool]:
    """Whether each row is held out, by the hash of its content alone.

    Equal rows land on the same side, and adding rows moves none of the others, with one exception: where the share of a
    small dataset comes to none, the row with the smallest hash is held out.

    Args:
        digests: SHA-256 of each row's content, at least one.
        fraction: Share of the rows to hold out, in (0, 1).
    """
    positions = [position(digest) for digest in digests]
    limit = threshold(fraction, min(positions))
    return [at < limit for at in positions]


def position(digest: bytes) -> int:
    """Where a row stands in 0..2^64 - 1, as if at random."""
    return int.from_bytes(digest[:8], "big")


def threshold(fraction: float, smallest: int) -> int:
    """The first position that is not held out, where `smallest` is the smallest of all."""
    return max(int(fraction * 2**64), smallest + 1)
