"""Choice of the held-out rows by the hash of their content."""

from __future__ import annotations

from collections.abc import Sequence


def held_out(digests: Sequence[bytes], fraction: float) -> list[bool]:
    """Whether each row is held out, by the hash of its content alone.

    Equal rows get the same answer, and added rows change no other row's. Exception: where the fraction of a small
    dataset rounds to no row, the row with the smallest hash is held out.

    Args:
        digests: SHA-256 of each row's content, at least one.
        fraction: Fraction of the rows to hold out, in (0, 1).
    """
    positions = [position(digest) for digest in digests]
    limit = threshold(fraction, min(positions))
    return [at < limit for at in positions]


def position(digest: bytes) -> int:
    """A uniform pseudo-random number in 0..2^64 - 1 from a digest."""
    return int.from_bytes(digest[:8], "big")


def threshold(fraction: float, smallest: int) -> int:
    """The first position that is not held out; `smallest` is the smallest of all rows."""
    return max(int(fraction * 2**64), smallest + 1)
