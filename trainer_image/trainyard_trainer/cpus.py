"""How many CPU cores this process may use: the cgroup's quota (v1 and v2), not the machine's core count.

Torch and OpenMP start a thread per core of the machine; under a quota those threads are throttled against each other.
"""

from __future__ import annotations

import os
from pathlib import Path

_ROOT = Path("/")


def cpu_limit(root: Path = _ROOT) -> int:
    """Whole cores the quota allows, at least 1; the cores of the affinity mask where there is no quota.

    Args:
        root: The directory that holds `sys` and `proc`.
    """
    cores = len(os.sched_getaffinity(0))
    quotas = [quota for quota in (_quota_v2(root), _quota_v1(root)) if quota is not None]
    return max(1, int(min([cores, *quotas])))


def _quota_v2(root: Path) -> float | None:
    values = []
    for directory in _directories(root / "sys/fs/cgroup", _own_path(root, "")):
        words = _read(directory / "cpu.max").split()
        if len(words) == 2 and words[0] != "max":
            values.append(int(words[0]) / int(words[1]))
    return min(values, default=None)


def _quota_v1(root: Path) -> float | None:
    values = []
    for directory in _directories(root / "sys/fs/cgroup/cpu", _own_path(root, "cpu")):
        quota, period = _read(directory / "cpu.cfs_quota_us"), _read(directory / "cpu.cfs_period_us")
        if quota and period and int(quota) > 0:
            values.append(int(quota) / int(period))
    return min(values, default=None)


def _own_path(root: Path, controller: str) -> str:
    """This process's cgroup below the hierarchy of a v1 controller, or of v2 for the empty name."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _number, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return "/"


def _directories(mount: Path, path: str) -> list[Path]:
    """The cgroup and all its parents up to the mount point; a quota of any of them binds."""
    own = mount / path.lstrip("/")
    return [own, *(parent for parent in own.parents if parent.is_relative_to(mount))]


def _read(path: Path) -> str:
    """The file's text, empty where a container's view of the hierarchy does not have it."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
