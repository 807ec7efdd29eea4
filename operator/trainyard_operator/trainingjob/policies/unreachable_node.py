"""A pod on a node that does not answer: said, with what an administrator can do about it, and left alone.

Kubernetes deletes such a pod after a while, but the object stays until the kubelet says that its container has ended:
nobody else can know. The Job waits for that, and so do we, since a pod that is forced away may train on. Kubernetes
forces it away by itself once somebody says that the machine is off (a taint), or deletes the Node.
"""

from __future__ import annotations

from collections.abc import Iterable

from trainyard_kube.paths import Object
from trainyard_operator.trainingjob.k8s_fields import pod_ended
from trainyard_operator.trainingjob.model import Observed

OUT_OF_SERVICE = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
"""The taint that lets Kubernetes force pods away from a node that does not answer."""


def silence(observed: Observed, pods: Iterable[Object]) -> str:
    """What is said of the first of a job's pods that is on a node that does not answer; empty where none is."""
    if not observed.unreachable_nodes:
        return ""
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"])):
        node = pod["spec"].get("nodeName")
        if node in observed.unreachable_nodes and not pod_ended(pod):
            return (
                f"Pod {pod['metadata']['name']} is on node {node}, which has not answered since "
                f"{observed.unreachable_nodes[node]}. No other pod takes its place until the node is back or, once its "
                f"machine is off, an administrator deletes the Node or taints it {OUT_OF_SERVICE}."
            )
    return ""
