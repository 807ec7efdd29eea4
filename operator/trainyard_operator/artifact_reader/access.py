"""Claims that only one node, or one pod, may mount at a time: where their reader runs, and when it has to end. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from trainyard_kube.paths import Object

_MANY = {"ReadWriteMany", "ReadOnlyMany"}
_ONE_POD = "ReadWriteOncePod"
_ENDED = ("Succeeded", "Failed")


class User(NamedTuple):
    """A pod that mounts a claim.

    Attributes:
        name: Its name.
        node: Its node; None while it has none.
        is_waiting: Whether its containers do not run yet.
    """

    name: str
    node: str | None
    is_waiting: bool


def access_modes(claim: Object) -> tuple[str, ...]:
    """Return how a claim may be mounted: as its volume permits, or as it asks for before it has one."""
    granted = (claim.get("status") or {}).get("accessModes")
    return tuple(granted or (claim.get("spec") or {}).get("accessModes") or ())


def is_exclusive(modes: Iterable[str]) -> bool:
    """Return whether pods of several nodes cannot mount a claim at the same time."""
    return not _MANY & set(modes)


def users(pods: Iterable[Object], claim: str, reader: str) -> list[User]:
    """Return the pods but the reader that mount a claim, or are about to."""
    return [_user(pod) for pod in pods if pod["metadata"]["name"] != reader and _mounts(pod, claim)]


def nodes(found: Iterable[User]) -> tuple[str, ...]:
    """Return the nodes on which a claim is used: its reader can mount it there only."""
    return tuple(sorted({user.node for user in found if user.node is not None}))


def must_yield(modes: Iterable[str], found: Iterable[User], node: str | None) -> bool:
    """Return whether another pod waits for a claim until the reader has ended.

    Args:
        modes: How the claim may be mounted.
        found: The other pods that mount it.
        node: Node of the reader.
    """
    only_one_pod = _ONE_POD in modes
    waiting = [user for user in found if user.is_waiting]
    return any(user.node not in (None, node) or (only_one_pod and user.node is None) for user in waiting)


def _mounts(pod: Object, claim: str) -> bool:
    if (pod.get("status") or {}).get("phase") in _ENDED:
        return False
    volumes = (pod.get("spec") or {}).get("volumes") or []
    return any((volume.get("persistentVolumeClaim") or {}).get("claimName") == claim for volume in volumes)


def _user(pod: Object) -> User:
    is_waiting = (pod.get("status") or {}).get("phase") == "Pending"
    return User(pod["metadata"]["name"], (pod.get("spec") or {}).get("nodeName"), is_waiting)
