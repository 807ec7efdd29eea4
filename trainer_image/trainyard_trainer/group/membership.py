"""A process's place in its group, by the names every launcher uses: RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainyard_trainer.errors import ConfigurationError

_LOOPBACK = "127.0.0.1"
LAUNCHER_ENV = "TRAINYARD_LAUNCHER_PID"
"""The process that must be there as long as its members are."""


@dataclass(frozen=True, kw_only=True)
class Membership:
    """One process of a group."""

    rank: int
    """In the group, from 0."""
    local_rank: int
    """On this node, from 0: the number of its GPU."""
    local_world_size: int
    """Processes on this node."""
    world_size: int
    master_address: str
    master_port: int

    def environ(self) -> dict[str, str]:
        """What tells a process that it is this member."""
        found = {
            "RANK": str(self.rank),
            "LOCAL_RANK": str(self.local_rank),
            "LOCAL_WORLD_SIZE": str(self.local_world_size),
            "WORLD_SIZE": str(self.world_size),
            "MASTER_ADDR": self.master_address,
            "MASTER_PORT": str(self.master_port),
        }
        # Left alone, gloo looks up the machine's own name, which a pod without DNS cannot.
        return {**found, "GLOO_SOCKET_IFNAME": "lo"} if self.master_address == _LOOPBACK else found


def membership(environ: Mapping[str, str]) -> Membership | None:
    """The place a launcher gave this process; None where it was started alone.

    Raises:
        ConfigurationError: A variable is missing or no number.
    """
    if "RANK" not in environ:
        return None
    world_size = _number(environ, "WORLD_SIZE")
    local_rank = _number(environ, "LOCAL_RANK")
    found = Membership(
        rank=_number(environ, "RANK"),
        local_rank=local_rank,
        local_world_size=_number(environ, "LOCAL_WORLD_SIZE", default=world_size),
        world_size=world_size,
        master_address=environ.get("MASTER_ADDR", _LOOPBACK),
        master_port=_number(environ, "MASTER_PORT"),
    )
    if not 0 <= found.rank < world_size:
        raise ConfigurationError(
            f"The environment's RANK is {found.rank}, but WORLD_SIZE is {world_size}.",
            "Count ranks from 0 to WORLD_SIZE - 1.",
        )
    return found


def local_members(processes: int, environ: Mapping[str, str], free_port: int) -> list[Membership]:
    """The members one node starts.

    Args:
        processes: How many.
        environ: NNODES and NODE_RANK where there are several nodes, which then share MASTER_ADDR and MASTER_PORT.
        free_port: Where they meet when this node is the only one.

    Raises:
        ConfigurationError: A variable is missing or no number.
    """
    nodes = _number(environ, "NNODES", default=1)
    node = _number(environ, "NODE_RANK", default=0)
    alone = nodes == 1
    return [
        Membership(
            rank=node * processes + local_rank,
            local_rank=local_rank,
            local_world_size=processes,
            world_size=nodes * processes,
            master_address=_LOOPBACK if alone else environ.get("MASTER_ADDR", _LOOPBACK),
            master_port=free_port if alone else _number(environ, "MASTER_PORT"),
        )
        for local_rank in range(processes)
    ]


def _number(environ: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environ.get(name)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError as error:
        raise ConfigurationError(
            f"The environment's {name} is {text!r}, but must be a whole number.",
            "Set RANK, LOCAL_RANK, WORLD_SIZE and MASTER_PORT together, or none of them.",
        ) from error
