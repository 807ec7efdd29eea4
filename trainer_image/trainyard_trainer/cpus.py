"""CPU cores available to this process: the cgroup quota (v1 and v2) instead of the node's core count.

Torch and OpenMP start one thread per core of the node; under a CPU quota these threads throttle each other.
"""

from __future__ import annotations

import os
from pathlib import Path

from trainyard_trainer.cgroup import group_directories, read_value

_ROOT = Path("/")


def cpu_limit(root: Path = _ROOT) -> int:
    """Return the whole cores of the quota, at least 1; without a quota, the cores of the affinity mask.

    Args:
        root: The directory that contains `sys` and `proc`.
    """
    cores = len(os.sched_getaffinity(0))
    quotas = [quota for quota in (_quota_v2(root), _quota_v1(root)) if quota is not None]
    return max(1, int(min([cores, *quotas])))


def threads_per_process(processes: int, root: Path = _ROOT) -> int:
    """Return the threads per process for processes that share the cores, at least 1."""
    return max(1, cpu_limit(root) // processes)


def _quota_v2(root: Path) -> float | None:
    values = []
    for directory in group_directories(root, "cpu", v2=True):
        fields = read_value(directory / "cpu.max").split()
        if len(fields) == 2 and fields[0] != "max":
            values.append(int(fields[0]) / int(fields[1]))
    return min(values, default=None)


def _quota_v1(root: Path) -> float | None:
    values = []
    for directory in group_directories(root, "cpu", v2=False):
        quota, period = read_value(directory / "cpu.cfs_quota_us"), read_value(directory / "cpu.cfs_period_us")
        if quota and period and int(quota) > 0:
            values.append(int(quota) / int(period))
    return min(values, default=None)
