"""Where the pods of a job may run, where they had better, and which further devices they get."""

from __future__ import annotations

from trainyard_crds.constants import JOB_UID_LABEL
from trainyard_crds.trainingjob_resources import Resources
from trainyard_kube.paths import Object


def node_choice(resources: Resources, prefer: tuple[str, ...] = ()) -> Object:
    """Return the parts of a pod that select its nodes.

    Pods of a job with GPUs tolerate the taint that has the resource's name, as the queue assumes: the admission plugin
    ExtendedResourceToleration, which is off by default, would add that toleration to pods that request GPUs only.

    Args:
        resources: Node selector, tolerations and node affinity, which nodes must meet.
        prefer: Nodes that the pod prefers; it may run elsewhere, for example after a node is lost.
    """
    tolerations = [entry.model_dump(by_alias=True, exclude_none=True) for entry in resources.tolerations or []]
    if resources.gpus:
        tolerations.append({"key": resources.gpu_resource, "operator": "Exists"})
    affinity = _required(resources) | _preferred(prefer)
    optional = {
        "nodeSelector": resources.node_selector,
        "tolerations": tolerations,
        "affinity": {"nodeAffinity": affinity} if affinity else None,
    }
    return {key: value for key, value in optional.items() if value}


def _required(resources: Resources) -> Object:
    if not resources.node_affinity:
        return {}
    expressions = [entry.model_dump(by_alias=True, exclude_none=True) for entry in resources.node_affinity]
    terms = [{"matchExpressions": expressions}]
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}


def _preferred(nodes: tuple[str, ...]) -> Object:
    """Each node is its own preference: a field selector of a node's name takes one value only."""
    if not nodes:
        return {}
    names = ({"key": "metadata.name", "operator": "In", "values": [node]} for node in sorted(set(nodes)))
    terms = [{"weight": 100, "preference": {"matchFields": [name]}} for name in names]
    return {"preferredDuringSchedulingIgnoredDuringExecution": terms}


def topology_spread(job: Object, resources: Resources) -> Object:
    """Return the preference of a gang's pods for different domains."""
    labels = {JOB_UID_LABEL: job["metadata"]["uid"]}
    constraints = [
        {
            **entry.model_dump(by_alias=True),
            "whenUnsatisfiable": "ScheduleAnyway",  # the queue does not choose nodes by it
            "labelSelector": {"matchLabels": labels},
        }
        for entry in resources.topology_spread or []
    ]
    return {"topologySpreadConstraints": constraints} if constraints else {}


def device_claims(resources: Resources) -> Object:
    """Return the claims of devices of a training pod."""
    claims = [entry.model_dump(by_alias=True, exclude_none=True) for entry in resources.claims or []]
    return {"resourceClaims": claims} if claims else {}
