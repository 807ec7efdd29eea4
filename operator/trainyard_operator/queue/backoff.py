"""Backoff after failed starts."""

from __future__ import annotations

_FIRST, _MOST = 60.0, 3600.0
"""Seconds, as in Kueue (waitForPodsReady)."""
_DOUBLINGS = 6
"""Doublings after which _MOST is reached."""


def backoff(failures: int) -> float:
    """Return the seconds from the last of `failures` failed starts to the next attempt; doubles each time."""
    return min(_MOST, _FIRST * 2.0 ** min(failures - 1, _DOUBLINGS))
