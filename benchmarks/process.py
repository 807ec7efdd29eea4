"""CPU and memory use of a process, read from /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cluster.processes import stat_fields

_TICKS = os.sysconf("SC_CLK_TCK")
_USER, _SYSTEM = 11, 12


@dataclass(frozen=True)
class Usage:
    """Resources that a process has used so far.

    Attributes:
        cpu: Seconds of CPU, user and system.
        rss: Resident memory in MiB.
        peak: Peak resident memory in MiB.
    """

    cpu: float
    rss: float
    peak: float


def usage(pid: int) -> Usage:
    """Return the usage of a process."""
    fields = stat_fields(Path(f"/proc/{pid}/stat").read_text())
    status = Path(f"/proc/{pid}/status").read_text()
    sizes = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line[:6] in ("VmRSS:", "VmHWM:")}
    return Usage(
        cpu=(int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS,
        rss=int(sizes["VmRSS"]) / 1024,
        peak=int(sizes["VmHWM"]) / 1024,
    )
