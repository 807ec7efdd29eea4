"""Packs rows into sequences of a fixed length by best-fit decreasing."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence

WINDOW = 4096
"""Rows sorted by length at a time: enough to fill the bins, few enough to keep epochs shuffled."""


def pack(order: Sequence[int], lengths: Sequence[int], capacity: int) -> Iterator[list[int]]:
    """Yield bins of rows whose lengths sum to at most `capacity`; every row of `order` is in exactly one.

    Best-fit decreasing within windows of the order: the longest row first, each into the fullest bin it fits in.

    Args:
        order: Row numbers.
        lengths: Length in tokens of every row, each in 1..capacity, indexed by row number.
        capacity: Tokens of a bin.
    """
    for start in range(0, len(order), WINDOW):
        yield from _pack_window(order[start : start + WINDOW], lengths, capacity)


def _pack_window(order: Sequence[int], lengths: Sequence[int], capacity: int) -> list[list[int]]:
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free tokens, bin), ascending
    for row in sorted(order, key=lambda row: -lengths[row]):
        length = int(lengths[row])
        best = bisect_left(room, (length, -1))
        if best == len(room):
            free, chosen = capacity, len(bins)
            bins.append([])
        else:
            free, chosen = room.pop(best)
        bins[chosen].append(row)
        insort(room, (free - length, chosen))
    return bins
