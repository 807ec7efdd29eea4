"""A job on several nodes: one Indexed Job whose pods start together, find each other by DNS and end together."""

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
"""Label and annotation of each pod of an Indexed Job."""


def environment(job: Object, nodes: int) -> list[Object]:
    """Variables by which the pods of a job find each other; none on one node."""
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
    """The part of a pod that gives it a DNS name below the job's Service; nothing on one node."""
    return {} if nodes == 1 else {"subdomain": service_name(job["metadata"]["name"], job["metadata"]["uid"])}


def job_spec(nodes: int, retries: Object) -> Object:
    """How many pods a Job has and what it does about those that fail.

    Pod 0 says when a run is done. Each index has a budget and a back-off of its own: with one for all, the pods that
    end with a lost peer would double the wait each (4 of them make it 80 s). That the budget is kept over all
    indexes together is the operator's matter.

    Args:
        nodes: Pods.
        retries: What a Job with one pod would do.
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
    """The headless Service that gives each pod its DNS name, before it is ready.

    Args:
        metadata: Its own, with the labels every child has.
        role: That of the pods.
    """
    selector = {JOB_UID_LABEL: metadata["labels"][JOB_UID_LABEL], ROLE_LABEL: role}
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": selector}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
