"""A control plane with fake nodes whose pods run for a time set per namespace, and then succeed."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import yaml

from cluster import api, binaries, kwok
from tests.api.gateway_support import Kubernetes, plane, until
from tests.api.operator_support import termination

Object = dict[str, Any]
_RAISED = ("--kube-api-qps=500", "--kube-api-burst=1000")
"""With the defaults (20/30 and 50/100 requests per second), many jobs would wait for the controllers."""


@contextmanager
def control_plane(name: str, *, nodes: int, seconds: Mapping[str, float]) -> Iterator[Kubernetes]:
    """Start a control plane with fake nodes of 8 GPUs each, and remove it in the end.

    Args:
        name: The cluster's name.
        nodes: Fake nodes.
        seconds: How long a pod runs, by namespace; in others it never ends.
    """
    with plane(name, extra_flags=_RAISED) as kubernetes:
        _start_nodes(kubernetes.cluster, nodes, seconds)
        yield kubernetes


def _start_nodes(cluster: api.Cluster, nodes: int, seconds: Mapping[str, float]) -> None:
    """Start kwok with stages that end pods; `kwok.start` then only creates the nodes."""
    stages = cluster.state / "conf" / "own-stages.yaml"
    stages.write_text(yaml.safe_dump_all(_stages(seconds), sort_keys=False))
    folder = binaries.ensure([*binaries.API, "kwok"])
    arguments = kwok.command(cluster.plane, folder)
    command = [f"--config={stages}" if each.startswith("--config=") else each for each in arguments]
    cluster.plane.processes.start("kwok", command)
    kwok.start(cluster.plane, folder, nodes)


def _stages(seconds: Mapping[str, float]) -> list[Object]:
    """The shipped stages, and one for each namespace whose pods end."""
    shipped: list[Object] = list(yaml.safe_load_all(kwok.STAGES.read_text()))
    complete = next(stage for stage in shipped if stage["metadata"]["name"] == "pod-complete")
    text = termination("Finished", step=100, message="Training finished after 100 steps.")
    message = json.dumps(text)  # quoted: the template is YAML
    ours = []
    for namespace, duration in seconds.items():
        stage = copy.deepcopy(complete)
        stage["metadata"]["name"] = f"pod-end-{namespace}"
        stage["spec"]["selector"]["matchExpressions"][-1] = {
            "key": ".metadata.namespace",
            "operator": "In",
            "values": [namespace],
        }
        stage["spec"]["delay"] = {"durationMilliseconds": int(duration * 1000)}
        lines = stage["spec"]["next"]["statusTemplate"].replace('{{ or $message "" | Quote }}', message).splitlines()
        stage["spec"]["next"]["statusTemplate"] = "\n".join(line for line in lines if "$message" not in line)
        ours.append(stage)
    return [*shipped, *ours]


@contextmanager
def autoscaler(kubernetes: Kubernetes, name: str, labels: Mapping[str, str], most: int) -> Iterator[None]:
    """Add a fake node of 8 GPUs, `most` at most, while a pod that selects these labels finds no room.

    Args:
        kubernetes: The control plane.
        name: Beginning of the nodes' names.
        labels: Their labels.
        most: Most nodes.
    """
    over, made = threading.Event(), list[str]()

    def grow() -> None:
        while not over.wait(0.2) and len(made) < most:
            pods = kubernetes.client.get("/api/v1/pods?fieldSelector=spec.nodeName%3D")["items"]
            if any(_is_unschedulable(pod) and labels.items() <= pod["spec"]["nodeSelector"].items() for pod in pods):
                made.append(f"{name}-{len(made)}")
                node = kwok.node(made[-1])
                node["metadata"]["labels"] |= labels
                kubernetes.apply(node)
                kubernetes.client.patch(f"/api/v1/nodes/{made[-1]}/status", {"status": node["status"]})
                over.wait(2)  # until the scheduler has placed the pod

    thread = threading.Thread(target=grow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for node in made:
            kubernetes.client.delete(f"/api/v1/nodes/{node}")


def _is_unschedulable(pod: Object) -> bool:
    conditions = pod["status"].get("conditions") or []
    return any(one["type"] == "PodScheduled" and one.get("reason") == "Unschedulable" for one in conditions)


def prepare_namespace(kubernetes: Kubernetes, namespace: str, claim: str) -> None:
    """Create a namespace with a bound claim for models, rows and runs, without a provisioner."""
    kubernetes.namespace(namespace)
    volume = f"{claim}-{namespace}"
    size, modes = {"storage": "1Gi"}, ["ReadWriteMany"]
    kubernetes.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {
                "capacity": size,
                "accessModes": modes,
                "storageClassName": "",
                "hostPath": {"path": "/nowhere"},
                "claimRef": {"name": claim, "namespace": namespace},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim, "namespace": namespace},
            "spec": {
                "accessModes": modes,
                "storageClassName": "",
                "volumeName": volume,
                "resources": {"requests": size},
            },
        },
    )
    path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}"
    until(lambda: kubernetes.client.get(path)["status"].get("phase") == "Bound")


def training_job(namespace: str, name: str, *, claim: str, gpus: int, suspend: bool = False, **spec: Any) -> Object:
    """Return a TrainingJob for the fake nodes; it stores into the namespace's claim."""
    return {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "task": "llm",
            "method": "lora",
            "model": {"source": f"pvc://{claim}/tiny"},
            "dataset": {"source": f"pvc://{claim}/train.jsonl"},
            "resources": {
                "gpus": gpus,
                "cpu": "100m",
                "memory": "64Mi",
                "nodeSelector": {"type": "kwok"},
                "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists", "effect": "NoSchedule"}],
            },
            "storage": {"claimName": claim},
            "suspend": suspend,
            **spec,
        },
    }
