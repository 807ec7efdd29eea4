"""Frequency of Python's cyclic garbage collection."""

from __future__ import annotations

import gc

_YOUNG = 5_000
"""Allocations between two collections of the youngest generation. At Python's default of 700, collections take two
thirds of the time of reading a list; with many more allocations, memory that was read is freed late."""


def reduce_collections() -> None:
    """Collect rarely, and exclude the objects that exist now, such as imported modules."""
    gc.freeze()
    gc.set_threshold(_YOUNG)
