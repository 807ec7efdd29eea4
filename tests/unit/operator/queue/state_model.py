"""Short ways to say what the queue looks at."""

from __future__ import annotations

import datetime as dt
from typing import Any

from trainyard_operator.queue.free_capacity import Room
from trainyard_operator.queue.inventory import Holder, Inventory
from trainyard_operator.queue.models import Admitted, Basis, Expectation, Request
from trainyard_operator.queue.pool import Node, Pool
from trainyard_operator.queue.quota import Quotas, pod_needs, quota_of

GPU = "nvidia.com/gpu"
POOL = Pool(GPU)
NOW = dt.datetime(2026, 1, 2, 10, tzinfo=dt.UTC)


def nodes(*counts: int, resource: str = GPU) -> Inventory:
    """Nodes n0, n1, ... with so many GPUs each."""
    inventory = Inventory()
    for number, count in enumerate(counts):
        inventory.put_node(Node(name=f"n{number}", allocatable={resource: count}))
    return inventory


def free(inventory: Inventory, pool: Pool) -> dict[str, int]:
    """GPUs left on each open node of a pool."""
    return Room(inventory, ()).free(pool)


def hold(inventory: Inventory, uid: str, node: str, gpus: int, job: str = "") -> None:
    """A pod on a node."""
    inventory.put_pod(uid, Holder(uid, f"team/{uid}", node, {GPU: gpus}, f"team/{job}" if job else ""))


def quota(
    hard: dict[str, str], used: dict[str, str] | None = None, *, namespace: str = "team", **spec: Any
) -> dict[str, Any]:
    """A ResourceQuota."""
    metadata = {"name": "gpus", "namespace": namespace, "uid": "quota"}
    return {"metadata": metadata, "spec": {"hard": hard, **spec}, "status": {"hard": hard, "used": used or {}}}


def quotas(*objects: dict[str, Any]) -> Quotas:
    """What the queue knows of such objects."""
    known = Quotas()
    for number, obj in enumerate(objects):
        known.put(f"quota-{number}", quota_of(obj))
    return known


def wants(
    uid: str,
    gpus: int = 1,
    nodes: int = 1,
    *,
    priority: int = 5,
    at: float = 0,
    seconds: float | None = None,
    expected: float | None = None,
    namespace: str = "team",
    pool: Pool = POOL,
    not_before: dt.datetime | None = None,
    made: bool = False,
) -> Request:
    """A job that waits since `at` seconds after NOW."""
    return Request(
        uid=uid,
        namespace=namespace,
        pool=pool if gpus else Pool(""),
        gpus=gpus,
        nodes=nodes,
        priority=priority,
        enqueued=NOW + dt.timedelta(seconds=at),
        seconds=seconds,
        expected=None if expected is None else Expectation(expected, Basis.HISTORY),
        not_before=not_before,
        needs=pod_needs(gpus, pool.resource, "2", "8Gi"),
        made=made,
    )


def runs(
    request: Request,
    *placement: str,
    since: float = 0,
    limit: float | None = None,
    remaining: float | None = None,
    leaving: bool = False,
) -> Admitted:
    """A job that was let in."""
    return Admitted(
        request=request,
        placement=placement,
        since=NOW + dt.timedelta(seconds=since),
        limit=limit,
        remaining=None if remaining is None else Expectation(remaining, Basis.PROGRESS),
        leaving=leaving,
    )
