"""Chooses free TCP ports for a cluster and records them, so that several clusters can run."""

import contextlib
import json
import random
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from cluster.errors import StartError
from cluster.shell import locked, write_atomically

RANGE = range(20000, 30000)
"""Below the kernel's range for outgoing connections (32768 up) and the NodePorts (30000 up)."""


def is_free(port: int) -> bool:
    """Return whether nothing listens on the port on any address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def choose(
    names: Iterable[str],
    remembered: Mapping[str, int],
    taken: Iterable[int],
    free: Callable[[int], bool] = is_free,
    candidates: Iterable[int] | None = None,
) -> dict[str, int]:
    """Return one free port for every name, keeping the remembered ones that are still free.

    Args:
        names: What the ports are for.
        remembered: The choice of an earlier run.
        taken: Ports that other clusters remember.
        free: Returns whether a port can be listened on.
        candidates: The order in which ports are tried; random by default.

    Raises:
        StartError: there are not enough free ports.
    """
    blocked = set(taken)
    supply = iter(candidates if candidates is not None else random.sample(RANGE, len(RANGE)))
    chosen: dict[str, int] = {}
    for name in names:
        port = remembered.get(name)
        if port is None or port in blocked or not free(port):
            port = next((new for new in supply if new not in blocked and free(new)), None)
        if port is None:
            raise StartError(f"no free TCP port between {RANGE.start} and {RANGE.stop - 1} for '{name}'.")
        blocked.add(port)
        chosen[name] = port
    return chosen


def reserve(state: Path, names: Iterable[str], keep: bool) -> dict[str, int]:
    """Choose the ports of the cluster in `state` and remember them there.

    Args:
        state: The cluster's state folder; its siblings are the other clusters.
        names: What the ports are for.
        keep: The cluster runs and uses its recorded ports: return them unchanged.
    """
    file = state / "ports.json"
    with locked(state.parent / ".ports.lock", "another cluster is choosing its ports; waiting for it"):
        remembered = load(file)
        if keep and set(names) <= set(remembered):
            return remembered
        others = [port for path in state.parent.glob("*/ports.json") if path != file for port in load(path).values()]
        running = (lambda port: port in remembered.values() or is_free(port)) if keep else is_free
        chosen = remembered | choose(names, remembered, others, running)
        write_atomically(file, json.dumps(chosen, indent=1))
    return chosen


def load(file: Path) -> dict[str, int]:
    """Return remembered ports; none when the file is missing or damaged."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return {str(name): int(port) for name, port in json.loads(file.read_text()).items()}
    return {}
