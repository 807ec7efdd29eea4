"""Ends the pods of a node without containerd or the kubelet, which may have crashed."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from cluster import network
from cluster.nodeconfig import BRIDGE
from cluster.processes import Identity, identify, stat_fields
from cluster.shell import run

_PARENT = 1


def stop_all(socket: Path, grace_seconds: float) -> None:
    """Stop all containers of the containerd at `socket`, first by SIGTERM, and their shims.

    Args:
        socket: The containerd's socket; shims carry it as an argument.
        grace_seconds: Time between SIGTERM and SIGKILL.
    """
    shims = find_shims(socket)
    containers = _children({shim.pid for shim in shims})
    _end(containers, signal.SIGTERM, grace_seconds)
    _end(containers, signal.SIGKILL, 5)
    _end(shims, signal.SIGKILL, 5)


def kill_all(socket: Path) -> None:
    """Kill all containers of the containerd at `socket`, the shims first, so that no shim can report an exit."""
    shims = find_shims(socket)
    containers = _children({shim.pid for shim in shims})
    _end([*shims, *containers], signal.SIGKILL, 10)
    _end(find_in_networks(noted_networks()), signal.SIGKILL, 10)  # containers of shims that were killed earlier


def find_shims(socket: Path, proc: Path = Path("/proc")) -> list[Identity]:
    """Return the container shims that serve the containerd at `socket`."""
    found = []
    for folder in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            arguments = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if "containerd-shim" in arguments[0] and str(socket) in arguments:
                found.append(identify(int(folder.name), proc))
    return [shim for shim in found if shim]


def remove_networks(notes: Path = Path("/var/lib/cni/results")) -> None:
    """Remove the network namespaces that the CNI plugins noted for our network, and the notes.

    Args:
        notes: Where libcni keeps the result of every call.
    """
    network.remove_namespaces(noted_networks(notes))
    for note in notes.glob(f"{BRIDGE}-*"):
        identifier = note.name.removeprefix(f"{BRIDGE}-").removesuffix("-eth0")
        for other in [note, *notes.glob(f"*-{identifier}-*")]:
            other.unlink(missing_ok=True)


def noted_networks(notes: Path = Path("/var/lib/cni/results")) -> set[str]:
    """Return the names of the network namespaces in libcni's notes about our network."""
    return {name for note in notes.glob(f"{BRIDGE}-*") for name in namespaces_in(note.read_text())}


def namespaces_in(note: str) -> list[str]:
    """Return the names of the network namespaces in libcni's note about a pod; none when the note is damaged."""
    try:
        interfaces = json.loads(note)["result"].get("interfaces", [])
    except (ValueError, KeyError):
        return []
    return sorted({Path(one["sandbox"]).name for one in interfaces if one.get("sandbox")})


def unmount_under(folders: Iterable[Path]) -> None:
    """Unmount everything mounted in the folders, the deepest first."""
    prefixes = tuple(f"{folder}/" for folder in folders)
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for point in sorted(points, reverse=True):
        if point.startswith(prefixes):
            run(["umount", "-l", point.replace("\\040", " ")])


def remove_cgroups(root: Path = Path("/sys/fs/cgroup")) -> None:
    """Remove the pods' empty control groups; ones with a process in them stay."""
    for top in [root / "kubepods", *root.glob("*/kubepods")]:
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()


def _children(parents: set[int], proc: Path = Path("/proc")) -> list[Identity]:
    found = []
    for folder in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            if int(stat_fields((folder / "stat").read_text())[_PARENT]) in parents:
                found.append(identify(int(folder.name), proc))
    return [child for child in found if child]


def find_in_networks(
    names: Iterable[str], netns: Path = Path("/run/netns"), proc: Path = Path("/proc")
) -> list[Identity]:
    """Return the processes in named network namespaces."""
    spaces = {_file(netns / name) for name in names} - {None}
    inside = [folder for folder in proc.glob("[0-9]*") if _file(folder / "ns" / "net") in spaces]
    found = [identify(int(folder.name), proc) for folder in inside]
    return [process for process in found if process]


def _file(path: Path) -> tuple[int, int] | None:
    """Return the identity of a file or namespace; None if it does not exist."""
    with contextlib.suppress(OSError):
        about = path.stat()
        return about.st_dev, about.st_ino
    return None


def _end(wanted: list[Identity], sig: signal.Signals, seconds: float) -> None:
    alive = [one for one in wanted if identify(one.pid) == one]
    for one in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, sig)
    deadline = time.monotonic() + seconds
    while any(identify(one.pid) == one for one in alive) and time.monotonic() < deadline:
        time.sleep(0.1)
