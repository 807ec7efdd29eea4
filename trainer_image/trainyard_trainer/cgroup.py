"""Reading of this process's control groups (v1 and v2), through which a container limits it."""

from __future__ import annotations

from pathlib import Path


def group_directories(root: Path, controller: str, *, v2: bool) -> list[Path]:
    """The process's own group and all its parents up to the mount point; a limit of any of them binds.

    Args:
        root: The directory that holds `sys` and `proc`.
        controller: As v1 names it: cpu, memory.
        v2: Whether the one hierarchy of v2 is meant, or the controller's own of v1.
    """
    mount = root / "sys/fs/cgroup" if v2 else root / "sys/fs/cgroup" / controller
    own = mount / _own_path(root, "" if v2 else controller).lstrip("/")
    return [own, *(parent for parent in own.parents if parent.is_relative_to(mount))]


def read_value(path: Path) -> str:
    """The file's text, empty where a container's view of the hierarchy does not have it."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _own_path(root: Path, controller: str) -> str:
    """This process's group below the hierarchy of a v1 controller, or of v2 for the empty name."""
    for line in read_value(root / "proc/self/cgroup").splitlines():
        _number, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return "/"
