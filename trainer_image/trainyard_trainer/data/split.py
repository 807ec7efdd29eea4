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
    limit = int(fraction * 2**64)
    threshold = max(limit, min(map(_position, digests)) + 1)
    return [_position(digest) < threshold for digest in digests]


def _position(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")
