"""Memory that this process can still allocate: of its container, else of the machine."""

from __future__ import annotations

import os
from pathlib import Path

from trainyard_trainer.cgroup import group_directories, read_value

_ROOT = Path("/")
_UNLIMITED = 2**60
"""Without a limit, cgroup v1 shows about 2 ** 63."""


def free_memory(root: Path = _ROOT) -> int | None:
    """Return the bytes that the process can still allocate; None where the system does not report them.

    Args:
        root: The directory that holds `sys` and `proc`.
    """
    held = _held(root)
    found = [limit - held for limit in _limits(root)]
    if (available := _available(root)) is not None:
        found.append(available)
    return max(0, min(found)) if found else None


def _limits(root: Path) -> list[int]:
    files = [directory / "memory.max" for directory in group_directories(root, "memory", v2=True)]
    files += [directory / "memory.limit_in_bytes" for directory in group_directories(root, "memory", v2=False)]
    values = [int(text) for text in map(read_value, files) if text.isdecimal()]
    return [value for value in values if value < _UNLIMITED]


def _held(root: Path) -> int:
    """Return the resident bytes of this process."""
    words = read_value(root / "proc/self/statm").split()
    return int(words[1]) * os.sysconf("SC_PAGE_SIZE") if len(words) > 1 else 0


def _available(root: Path) -> int | None:
    """Return the bytes that the machine can provide without swapping."""
    for line in read_value(root / "proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    return None
