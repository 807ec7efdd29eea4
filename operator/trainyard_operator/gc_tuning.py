"""How often Python looks for cycles of objects that nobody uses."""

from __future__ import annotations

import gc

_YOUNG = 5_000
"""Objects made since the last look before the next: at 700, Python's own, looking takes two thirds of the time of
reading a list; with many more, what has been read stays in memory for long."""


def calm() -> None:
    """Look seldom, and never again through what exists now: what was imported stays."""
    gc.freeze()
    gc.set_threshold(_YOUNG)
