"""Reads the cgroups (v1 and v2) that limit this process."""

from __future__ import annotations

from pathlib import Path


def group_directories(root: Path, controller: str, *, v2: bool) -> list[Path]:
    """Return the directories of the process's cgroup and its parents up to the mount point; all their limits apply.

    Args:
        root: The directory that contains `sys` and `proc`.
        controller: Controller name in v1: cpu, memory.
        v2: Whether to use the unified hierarchy of v2 instead of the controller's hierarchy of v1.
    """
    mount = root / "sys/fs/cgroup" if v2 else root / "sys/fs/cgroup" / controller
    own = mount / _own_path(root, "" if v2 else controller).lstrip("/")
    return [own, *(parent for parent in own.parents if parent.is_relative_to(mount))]


def read_value(path: Path) -> str:
    """Return the content of a file; empty if the container does not see it."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _own_path(root: Path, controller: str) -> str:
    """Return the path of this process's cgroup in the hierarchy of a v1 controller, or of v2 for an empty name."""
    for line in read_value(root / "proc/self/cgroup").splitlines():
        _number, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return "/"
