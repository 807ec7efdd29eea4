"""The clock of the process; logic takes it as an argument, tests give their own."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

_PROCESS = Path("/proc/self/stat")
_START_TICKS = 19
"""Index of `starttime` (proc(5)) among the fields after the command, which may hold blanks and brackets."""


class Clock(Protocol):
    """Where time comes from."""

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean something."""

    def now(self) -> str:
        """The time of day, RFC 3339 in UTC."""


class SystemClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean something."""
        return time.monotonic()

    def now(self) -> str:
        """The time of day, RFC 3339 in UTC with milliseconds."""
        return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def process_start_time(clock: Clock) -> float:
    """Monotonic seconds at which this process was started; of this call where the system does not tell (no /proc)."""
    try:
        fields = _PROCESS.read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return clock.monotonic()
    since_boot = int(fields[_START_TICKS]) / os.sysconf("SC_CLK_TCK")
    return clock.monotonic() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)
