"""Moves the wall clock of this process, as a wrong or corrected system clock does; monotonic time is unchanged."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any


def move(text: str) -> None:
    """Move it.

    Args:
        text: Seconds to move it by, a colon, and seconds from now until it jumps.
    """
    by, _, after = text.partition(":")
    due, seconds, real, real_ns = time.monotonic() + float(after), float(by), time.time, time.time_ns

    def shift() -> float:
        return seconds if time.monotonic() >= due else 0.0

    class Moved(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return super().fromtimestamp(real() + shift(), tz)

    from trainyard_kube import clock

    time.time = lambda: real() + shift()
    time.time_ns = lambda: real_ns() + int(shift() * 1e9)
    clock.datetime = Moved  # type: ignore[attr-defined]
