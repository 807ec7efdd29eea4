"""Membership of a process in a group, from the usual launcher variables (RANK, WORLD_SIZE, ...); pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainyard_trainer.errors import ConfigurationError

LOOPBACK = "127.0.0.1"
INTERFACE_ENV = "GLOO_SOCKET_IFNAME"
LAUNCHER_ENV = "TRAINYARD_LAUNCHER_PID"
"""Process ID of the launcher; a member must not outlive it."""
_PROCESS_ADVICE = "Set RANK, LOCAL_RANK, WORLD_SIZE and MASTER_PORT together, or none of them."
_NODE_ADVICE = (
    "Set NNODES (to the run config's nodes), NODE_RANK, MASTER_ADDR and MASTER_PORT together, or none of them."
)


@dataclass(frozen=True, kw_only=True)
class Membership:
    """One process of a group."""

    rank: int
    """Rank in the group, from 0."""
    local_rank: int
    """Rank on this node, from 0; also the index of its GPU."""
    local_world_size: int
    """Processes on this node."""
    world_size: int
    master_address: str
    master_port: int
    interface: str | None = None
    """Network interface of gloo; None lets gloo choose."""

    def environ(self) -> dict[str, str]:
        """Return the environment variables of this member."""
        found = {
            "RANK": str(self.rank),
            "LOCAL_RANK": str(self.local_rank),
            "LOCAL_WORLD_SIZE": str(self.local_world_size),
            "WORLD_SIZE": str(self.world_size),
            "MASTER_ADDR": self.master_address,
            "MASTER_PORT": str(self.master_port),
        }
        # By default gloo resolves the host name, which fails in a pod without DNS.
        return found if self.interface is None else {**found, INTERFACE_ENV: self.interface}


@dataclass(frozen=True, kw_only=True)
class Node:
    """One pod of a group, with the address of the rendezvous."""

    index: int = 0
    count: int = 1
    address: str = LOOPBACK
    port: int
    interface: str | None = "lo"
    """Network interface of gloo; None lets gloo choose."""


def membership(environ: Mapping[str, str]) -> Membership | None:
    """Return the membership that a launcher set; None without a launcher.

    Raises:
        ConfigurationError: A variable is missing or not a number.
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
        master_address=environ.get("MASTER_ADDR", LOOPBACK),
        master_port=_number(environ, "MASTER_PORT"),
        interface=environ.get(INTERFACE_ENV),
    )
    if not 0 <= found.rank < world_size:
        raise ConfigurationError(
            f"The environment's RANK is {found.rank}, but WORLD_SIZE is {world_size}.",
            "Count ranks from 0 to WORLD_SIZE - 1.",
        )
    return found


def this_node(nodes: int, environ: Mapping[str, str]) -> Node | None:
    """Return this pod of a multi-node run from NODE_RANK, MASTER_ADDR and MASTER_PORT; None for a single node.

    Args:
        nodes: Nodes of the run.
        environ: The environment; NNODES must equal `nodes`.

    Raises:
        ConfigurationError: A variable is missing or wrong.
    """
    count = _number(environ, "NNODES", default=1, advice=_NODE_ADVICE)
    if count != nodes:
        raise ConfigurationError(
            f"The environment's NNODES is {environ.get('NNODES', 'not set')}, but the run config's nodes is {nodes}.",
            _NODE_ADVICE,
        )
    if nodes == 1:
        return None
    index = _number(environ, "NODE_RANK", advice=_NODE_ADVICE)
    if not 0 <= index < nodes:
        raise ConfigurationError(
            f"The environment's NODE_RANK is {index}, but NNODES is {nodes}.", "Count nodes from 0 to NNODES - 1."
        )
    if not (address := environ.get("MASTER_ADDR")):
        raise ConfigurationError("The environment's MASTER_ADDR is not set.", _NODE_ADVICE)
    port = _number(environ, "MASTER_PORT", advice=_NODE_ADVICE)
    return Node(index=index, count=nodes, address=address, port=port, interface=environ.get(INTERFACE_ENV))


def local_members(processes: int, node: Node) -> list[Membership]:
    """Return the members that one pod starts.

    Args:
        processes: Processes per pod.
        node: The pod.
    """
    return [
        Membership(
            rank=node.index * processes + local_rank,
            local_rank=local_rank,
            local_world_size=processes,
            world_size=node.count * processes,
            master_address=node.address,
            master_port=node.port,
            interface=node.interface,
        )
        for local_rank in range(processes)
    ]


def _number(environ: Mapping[str, str], name: str, default: int | None = None, advice: str = _PROCESS_ADVICE) -> int:
    text = environ.get(name)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError as error:
        raise ConfigurationError(
            f"The environment's {name} is {text!r}, but must be a whole number.",
            advice,
        ) from error
