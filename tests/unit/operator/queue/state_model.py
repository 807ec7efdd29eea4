"""Builders for the queue's inputs."""

from __future__ import annotations

import datetime as dt
from typing import Any

from trainyard_operator.queue.free_capacity import FreeCapacity
from trainyard_operator.queue.inventory import Holder, Inventory
from trainyard_operator.queue.models import Admitted, Basis, Estimate, Request
from trainyard_operator.queue.pool import Node, Pool
from trainyard_operator.queue.quota import Quotas, created_usage, pod_usage, quota_of

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
    """Free GPUs of each schedulable node of a pool."""
    return FreeCapacity(inventory, ()).free(pool)


def hold(inventory: Inventory, uid: str, node: str, gpus: int, job: str = "") -> None:
    """Bind a pod to a node."""
    inventory.put_pod(uid, Holder(uid, f"team/{uid}", node, {GPU: gpus}, f"team/{job}" if job else ""))


def quota(
    hard: dict[str, str], used: dict[str, str] | None = None, *, namespace: str = "team", **spec: Any
) -> dict[str, Any]:
    """A ResourceQuota."""
    metadata = {"name": "gpus", "namespace": namespace, "uid": "quota"}
    return {"metadata": metadata, "spec": {"hard": hard, **spec}, "status": {"hard": hard, "used": used or {}}}


def quotas(*objects: dict[str, Any]) -> Quotas:
    """The index of such objects."""
    known = Quotas()
    for number, obj in enumerate(objects):
        known.put(f"quota-{number}", quota_of(obj))
    return known


def make_request(
    uid: str,
    gpus: int = 1,
    nodes: int = 1,
    *,
    priority: int = 5,
    at: float = 0,
    time_limit: float | None = None,
    expected_run: float | None = None,
    namespace: str = "team",
    pool: Pool = POOL,
    not_before: dt.datetime | None = None,
    has_job: bool = False,
    claim_size: str | None = None,
    storage_class: str | None = None,
) -> Request:
    """A job enqueued `at` seconds after NOW."""
    created = created_usage(service=nodes > 1, claim_size=claim_size, storage_class=storage_class)
    return Request(
        uid=uid,
        namespace=namespace,
        pool=pool if gpus else Pool(""),
        gpus=gpus,
        nodes=nodes,
        priority=priority,
        enqueued_at=NOW + dt.timedelta(seconds=at),
        time_limit=time_limit,
        expected_run=None if expected_run is None else Estimate(expected_run, Basis.HISTORY),
        not_before=not_before,
        pod_usage=pod_usage(gpus, pool.resource, "2", "8Gi"),
        created_usage={} if has_job else created,
        has_job=has_job,
    )


def make_admitted(
    request: Request,
    *placement: str,
    admitted_at: float = 0,
    time_limit: float | None = None,
    remaining: float | None = None,
    releasing: bool = False,
) -> Admitted:
    """An admitted job."""
    return Admitted(
        request=request,
        placement=placement,
        admitted_at=NOW + dt.timedelta(seconds=admitted_at),
        time_limit=time_limit,
        remaining=None if remaining is None else Estimate(remaining, Basis.PROGRESS),
        releasing=releasing,
    )
