"""Where a gang goes: whole or not at all, and where it breaks up the fewest free GPUs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def place(free: dict[str, int], *, gpus: int, nodes: int) -> tuple[str, ...] | None:
    """A node for each pod of a gang, or None where they do not all fit.

    Each pod goes to the node with the fewest free GPUs that has enough (best fit), so that whole nodes stay whole for
    those who need them. Two pods of a gang may share a node. Best fit finds a place whenever there is one, since the
    pods are alike: each takes one of the floor(free / gpus) slots of a node, whichever it is.

    Args:
        free: GPUs left by node.
        gpus: GPUs of each pod; at least 1.
        nodes: Pods of the gang.
    """
    if slots(free.values(), gpus) < nodes:
        return None
    left, chosen = dict(free), list[str]()
    for _ in range(nodes):
        best = min((count, name) for name, count in left.items() if count >= gpus)[1]
        left[best] -= gpus
        chosen.append(best)
    return tuple(sorted(chosen))


def slots(free: Iterable[int], gpus: int) -> int:
    """How many pods of so many GPUs fit."""
    return sum(count // gpus for count in free)


def take(free: dict[str, int], placement: Sequence[str], gpus: int) -> None:
    """Mark GPUs as used, in place; a node that has none left, or is unknown, cannot give more."""
    for node in placement:
        if node in free:
            free[node] = max(0, free[node] - gpus)


def give(free: dict[str, int], placement: Sequence[str], gpus: int) -> None:
    """Mark GPUs as free again, in place; a node that is unknown or closed gives nothing back."""
    for node in placement:
        if node in free:
            free[node] += gpus


def reserve(free: dict[str, int], placement: Sequence[str], gpus: int) -> None:
    """Hold GPUs for pods that are not bound yet: on the node meant for each, else where one fits, else nothing.

    Args:
        free: GPUs left by node, changed in place.
        placement: The node meant for each pod.
        gpus: GPUs of each pod.
    """
    homeless = 0
    for node in placement:
        if free.get(node, 0) >= gpus:
            free[node] -= gpus
        else:
            homeless += 1
    for _ in range(homeless):
        found = place(free, gpus=gpus, nodes=1)
        if found is None:
            return
        take(free, found, gpus)
