"""When a failed adapter is tried again. Pure."""

from __future__ import annotations

ATTEMPTS = 6
"""Tries of one version; then it is Failed until the adapter set changes."""
_FIRST, _LONGEST = 2.0, 60.0


def delay(failures: int) -> float:
    """Return the seconds until the next try after so many failures."""
    return min(_LONGEST, _FIRST * 2.0 ** (failures - 1))
