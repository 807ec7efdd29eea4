"""Token bucket with the time passed in. No I/O."""

from __future__ import annotations

import math

_ROUNDING = 1e-6
"""Seconds that count as none: a wait of a rounding error must not be slept."""


class TokenBucket:
    """Permits `burst` operations at once and `rate` per second after that.

    Args:
        rate: Operations per second.
        burst: Operations that can be saved up.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._tokens, self._filled = burst, -math.inf
        self._paused_until = -math.inf

    def delay(self, now: float) -> float:
        """Return the seconds until the next operation is permitted, 0 if it is now."""
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._filled) * self._rate)
        self._filled = max(now, self._filled)
        delay = max(self._paused_until - now, (1 - self._tokens) / self._rate)
        return delay if delay >= _ROUNDING else 0.0

    def try_take(self, now: float) -> bool:
        """Take one token if an operation is permitted now, and return whether it was."""
        if self.delay(now) > 0:
            return False
        self._tokens -= 1
        return True

    def pause(self, now: float, seconds: float) -> None:
        """Permit nothing for some seconds, as a server requested."""
        self._paused_until = max(self._paused_until, now + seconds)
