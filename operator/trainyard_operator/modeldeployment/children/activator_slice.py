"""The EndpointSlice by which the gateway's activator stands in for replicas while there are none."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from trainyard_kube.paths import Object
from trainyard_operator.modeldeployment.children.metadata import child, labels, name_of

SERVICE_LABEL = "kubernetes.io/service-name"
_MANAGER_LABEL, _MANAGER = "endpointslice.kubernetes.io/managed-by", "trainyard.dev"
ACTIVATOR_PORT = 8445


def activator_slice(obj: Object, addresses: Iterable[str]) -> Object:
    """Return the EndpointSlice with the addresses of the gateway's pods, those of the first one's family.

    Args:
        obj: The ModelDeployment.
        addresses: Addresses of the gateway's pods; at least one.
    """
    found = sorted(addresses)
    version = ipaddress.ip_address(found[0]).version
    same = [address for address in found if ipaddress.ip_address(address).version == version]
    body = child(
        obj,
        "EndpointSlice",
        "discovery.k8s.io/v1",
        f"{name_of(obj)}-activator",
        addressType=f"IPv{version}",
        endpoints=[{"addresses": [address], "conditions": {"ready": True}} for address in same],
        ports=[{"name": "http", "port": ACTIVATOR_PORT, "protocol": "TCP"}],
    )
    body["metadata"]["labels"] = {
        **labels(obj),
        SERVICE_LABEL: obj["metadata"]["name"],
        _MANAGER_LABEL: _MANAGER,
    }
    return body
