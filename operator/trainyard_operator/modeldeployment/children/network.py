"""Service, HTTPRoute and PodDisruptionBudget."""

from __future__ import annotations

from trainyard_crds.serving import PROXY_PORT
from trainyard_kube.paths import Object
from trainyard_operator.modeldeployment.children.metadata import child, name_of, pod_labels
from trainyard_operator.modeldeployment.spec import Spec

ACTIVATOR_HEADER = "x-trainyard-deployment"
"""Header by which the gateway's activator knows the ModelDeployment behind an HTTPRoute: `namespace/name`."""


def service(obj: Object, spec: Spec) -> Object:
    """Return the Service, which has the name of the ModelDeployment; only inference is behind it."""
    return child(
        obj,
        "Service",
        "v1",
        obj["metadata"]["name"],
        spec={
            "type": spec.service_type,
            "selector": pod_labels(obj),
            "ports": [{"name": "http", "port": spec.port, "targetPort": PROXY_PORT, "protocol": "TCP"}],
        },
    )


def route(obj: Object, spec: Spec) -> Object:
    """Return the HTTPRoute to the Service."""
    assert spec.route is not None
    metadata, gateway = obj["metadata"], spec.route.gateway
    parent = {"name": gateway.name, "namespace": gateway.namespace, "sectionName": gateway.section_name}
    header = {"name": ACTIVATOR_HEADER, "value": f"{metadata['namespace']}/{metadata['name']}"}
    rule = {
        "backendRefs": [{"name": metadata["name"], "port": spec.port}],
        "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [header]}}],
    }
    hostnames = {"hostnames": list(spec.route.hostnames)} if spec.route.hostnames else {}
    return child(
        obj,
        "HTTPRoute",
        "gateway.networking.k8s.io/v1",
        name_of(obj),
        spec={"parentRefs": [{key: value for key, value in parent.items() if value}], **hostnames, "rules": [rule]},
    )


def budget(obj: Object) -> Object:
    """Return the PodDisruptionBudget: a drain of nodes takes one replica at a time."""
    return child(
        obj,
        "PodDisruptionBudget",
        "policy/v1",
        name_of(obj),
        spec={
            "maxUnavailable": 1,
            "selector": {"matchLabels": pod_labels(obj)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    )
