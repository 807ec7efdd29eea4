"""The clock of the process, passed as an argument so that tests can replace it."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

_PROCESS = Path("/proc/self/stat")
_START_TICKS = 19
"""Index of `starttime` (proc(5)) after the command field, which may contain spaces and parentheses."""


class Clock(Protocol):
    """Source of time."""

    def monotonic(self) -> float:
        """Return monotonic seconds; only differences are meaningful."""

    def now(self) -> str:
        """Return the time, RFC 3339 in UTC."""


class SystemClock:
    """The system clock."""

    def monotonic(self) -> float:
        """Return monotonic seconds; only differences are meaningful."""
        return time.monotonic()

    def now(self) -> str:
        """Return the time, RFC 3339 in UTC with milliseconds."""
        return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def process_start_time(clock: Clock) -> float:
    """Return the start of this process in monotonic seconds, or the current time without /proc."""
    try:
        fields = _PROCESS.read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return clock.monotonic()
    since_boot = int(fields[_START_TICKS]) / os.sysconf("SC_CLK_TCK")
    return clock.monotonic() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)
