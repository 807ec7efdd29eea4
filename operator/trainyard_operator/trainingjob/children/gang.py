"""Children of a gang: an Indexed Job whose pods start and end together, and a Service for their DNS names."""

from __future__ import annotations

from trainyard_crds.constants import (
    JOB_UID_LABEL,
    MASTER_ADDRESS_ENV,
    MASTER_PORT,
    MASTER_PORT_ENV,
    NODE_RANK_ENV,
    NODES_ENV,
    ROLE_LABEL,
    master_address,
    service_name,
)
from trainyard_kube.paths import Object

INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
"""Label and annotation with the index of each pod of an Indexed Job."""


def environment(job: Object, nodes: int) -> list[Object]:
    """Return the variables with which the pods of a gang rendezvous; none on one node."""
    if nodes == 1:
        return []
    metadata = job["metadata"]
    address = master_address(metadata["namespace"], metadata["name"], metadata["uid"])
    rank = {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX_LABEL}']"}}
    return [
        {"name": NODES_ENV, "value": str(nodes)},
        {"name": NODE_RANK_ENV, "valueFrom": rank},
        {"name": MASTER_ADDRESS_ENV, "value": address},
        {"name": MASTER_PORT_ENV, "value": str(MASTER_PORT)},
    ]


def subdomain(job: Object, nodes: int) -> Object:
    """Return the part of a pod that gives it a DNS name below the job's Service; nothing on one node."""
    return {} if nodes == 1 else {"subdomain": service_name(job["metadata"]["name"], job["metadata"]["uid"])}


def job_spec(nodes: int, retries: Object) -> Object:
    """Return the number of a Job's pods and how it handles pods that fail.

    The success of pod 0 completes the Job. Each index has its own retry limit and backoff: with a common backoff, each
    pod that ends with a lost peer would double it (4 pods make it 80 s). The operator enforces spec.retry.limit over
    all indexes together.

    Args:
        nodes: Number of pods.
        retries: How a Job with one pod handles failures.
    """
    counts = {"parallelism": nodes, "completions": nodes}
    if nodes == 1:
        return counts | retries
    kept = {key: value for key, value in retries.items() if key != "backoffLimit"}
    return {
        **counts,
        "completionMode": "Indexed",
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
        "backoffLimitPerIndex": retries["backoffLimit"],
        "maxFailedIndexes": 0,
        **kept,
    }


def service(metadata: Object, role: str) -> Object:
    """Return the headless Service that gives each pod its DNS name, before the pod is ready.

    Args:
        metadata: The Service's metadata, with the labels that every child has.
        role: Role label of the pods.
    """
    selector = {JOB_UID_LABEL: metadata["labels"][JOB_UID_LABEL], ROLE_LABEL: role}
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": selector}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
