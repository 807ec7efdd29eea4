"""How long a job whose start came to nothing stays out of the way of others."""

from __future__ import annotations

_FIRST, _MOST = 60.0, 3600.0
"""Seconds, as in Kueue (waitForPodsReady)."""
_DOUBLINGS = 6
"""After so many, _MOST is reached."""


def backoff(failures: int) -> float:
    """Seconds from the last of so many failed starts to the next try: twice as long each time."""
    return min(_MOST, _FIRST * 2.0 ** min(failures - 1, _DOUBLINGS))
