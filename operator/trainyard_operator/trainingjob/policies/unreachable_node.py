"""A pod on an unreachable node: reported with the remedy, and left alone.

Kubernetes deletes such a pod after a while, but the object stays until the kubelet reports that its container ended.
The Job waits for that, and so does the operator, since the container of a force-deleted pod may continue to train.
Kubernetes force-deletes the pod once an administrator taints the node as out of service, or deletes the Node.
"""

from __future__ import annotations

from collections.abc import Iterable

from trainyard_kube.paths import Object
from trainyard_operator.trainingjob.k8s_fields import pod_ended
from trainyard_operator.trainingjob.model import Observed

OUT_OF_SERVICE = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
"""The taint with which Kubernetes force-deletes pods of an unreachable node."""


def unreachable_node_message(observed: Observed, pods: Iterable[Object]) -> str:
    """Return the message about the first pod on an unreachable node; empty where none is."""
    if not observed.unreachable_nodes:
        return ""
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"])):
        node = pod["spec"].get("nodeName")
        if node in observed.unreachable_nodes and not pod_ended(pod):
            return (
                f"Pod {pod['metadata']['name']} is on node {node}, which has been unreachable since "
                f"{observed.unreachable_nodes[node]}. No other pod takes its place until the node is back or, once its "
                f"machine is off, an administrator deletes the Node or taints it {OUT_OF_SERVICE}."
            )
    return ""
