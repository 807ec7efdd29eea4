"""Gang placement: all pods or none, by best fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_FUTURE = "+"
"""First character of the names of nodes that an autoscaler has yet to create; no node has it."""


def future_name(pool: str, number: int) -> str:
    """Return the name of a node that does not exist yet."""
    return f"{_FUTURE}{pool}-{number}"


def is_future(node: str) -> bool:
    """Return whether a node does not exist yet."""
    return node.startswith(_FUTURE)


def place(free: dict[str, int], *, gpus: int, nodes: int) -> tuple[str, ...] | None:
    """Return a node for each pod of a gang, or None if they do not all fit.

    Best fit: each pod goes to the node with the fewest free GPUs that has enough, which keeps whole nodes free for
    large jobs. Nodes that do not exist yet come last. Pods of a gang may share a node. The pods are identical and a
    node has floor(free / gpus) slots for them, so best fit finds a placement whenever one exists.

    Args:
        free: Free GPUs by node.
        gpus: GPUs of each pod; at least 1.
        nodes: Pods of the gang.
    """
    if slots(free.values(), gpus) < nodes:
        return None
    left, chosen = dict(free), list[str]()
    for _ in range(nodes):
        best = min((is_future(name), count, name) for name, count in left.items() if count >= gpus)[2]
        left[best] -= gpus
        chosen.append(best)
    return tuple(sorted(chosen))


def slots(free: Iterable[int], gpus: int) -> int:
    """Return how many pods of `gpus` GPUs fit."""
    return sum(count // gpus for count in free)


def take(free: dict[str, int], placement: Sequence[str], gpus: int) -> None:
    """Mark GPUs as taken, in place; unknown nodes are ignored and counts stay at least 0."""
    for node in placement:
        if node in free:
            free[node] = max(0, free[node] - gpus)


def give(free: dict[str, int], placement: Sequence[str], gpus: int) -> None:
    """Mark GPUs as free again, in place; unknown and unschedulable nodes are ignored."""
    for node in placement:
        if node in free:
            free[node] += gpus


def reserve_planned(free: dict[str, int], placement: Sequence[str], gpus: int) -> int:
    """Take GPUs for unbound pods on their planned nodes, in place.

    Args:
        free: Free GPUs by node.
        placement: The node planned for each pod; empty for none.
        gpus: GPUs of each pod.

    Returns:
        The number of pods whose node is not planned or has too few GPUs.
    """
    displaced = 0
    for node in placement:
        if free.get(node, 0) >= gpus:
            free[node] -= gpus
        else:
            displaced += 1
    return displaced


def reserve_anywhere(free: dict[str, int], pods: int, gpus: int) -> None:
    """Take GPUs for unbound pods on any nodes, in place; what fits nowhere is not reserved."""
    for _ in range(pods):
        found = place(free, gpus=gpus, nodes=1)
        if found is None:
            return
        take(free, found, gpus)
