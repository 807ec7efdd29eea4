"""Fake nodes with fake GPUs, run by kwok."""

import datetime as dt
from pathlib import Path
from typing import Any

from cluster.client import Client
from cluster.controlplane import ControlPlane
from cluster.shell import wait_until

STAGES = Path(__file__).with_name("kwok-stages.yaml")
GPUS = 8


def start(plane: ControlPlane, binaries: Path, count: int) -> None:
    """Start kwok with `count` nodes of 8 fake GPUs each and wait until they are ready.

    Pods reach them by the node selector `type: kwok` and a toleration of the taint `kwok.x-k8s.io/node`.

    Raises:
        StartError: kwok ended, or the nodes did not become ready.
    """
    client = plane.client()
    names = [f"kwok-{index}" for index in range(count)]
    for name in names:
        if plane.processes.pid("kwok") is None:
            # A new kwok waits 40 s for the lease of its predecessor to expire, unless the lease is deleted.
            client.delete(f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}")
        if not client.exists(f"/api/v1/nodes/{name}"):
            client.apply(f"/api/v1/nodes/{name}", node(name))
            client.apply(f"/api/v1/nodes/{name}/status", node(name))
    plane.processes.start("kwok", command(plane, binaries))
    wait_until(lambda: _all_ready(plane, client, names), 300, f"{count} kwok nodes becoming ready")


def command(plane: ControlPlane, binaries: Path) -> list[str]:
    """Return kwok's command line."""
    return [
        str(binaries / "kwok"),
        f"--kubeconfig={plane.kubeconfig}",
        f"--config={STAGES}",
        "--manage-nodes-with-label-selector=type=kwok",
        "--node-lease-duration-seconds=40",
    ]


def node(name: str) -> dict[str, Any]:
    """Return a fake node of 8 GPUs."""
    resources = {"cpu": "64", "memory": "512Gi", "pods": "256", "nvidia.com/gpu": str(GPUS)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"type": "kwok", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
            "annotations": {"kwok.x-k8s.io/node": "fake"},
        },
        "spec": {"taints": [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]},
        "status": {"capacity": resources, "allocatable": resources},
    }


def ready(node: dict[str, Any], since: dt.datetime | None = None) -> bool:
    """Return whether a node reports that it is ready.

    Args:
        node: The Node object.
        since: Older heartbeats do not count: they may be those of a kubelet that has exited.
    """
    conditions = [one for one in node.get("status", {}).get("conditions", []) if one["type"] == "Ready"]
    heartbeats = [dt.datetime.fromisoformat(one["lastHeartbeatTime"]) for one in conditions if one["status"] == "True"]
    return any(since is None or heartbeat >= since for heartbeat in heartbeats)


def _all_ready(plane: ControlPlane, client: Client, names: list[str]) -> bool:
    plane.processes.require("kwok")
    nodes = client.get("/api/v1/nodes?labelSelector=type%3Dkwok")["items"]
    return {one["metadata"]["name"] for one in nodes if ready(one)} >= set(names)
