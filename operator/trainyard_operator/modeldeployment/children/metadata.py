"""Names, labels and owner of a ModelDeployment's children."""

from __future__ import annotations

from collections.abc import Mapping

from trainyard_crds.common import API_VERSION
from trainyard_crds.constants import MANAGED_BY, MANAGED_BY_LABEL, ROLE_LABEL, child_name
from trainyard_crds.serving import DEPLOYMENT_NAME_LABEL, DEPLOYMENT_UID_LABEL, SERVE_ROLE
from trainyard_kube.paths import Object


def name_of(obj: Object) -> str:
    """Return the name of the Deployment, and the beginning of the names of the other children but the Service."""
    return child_name(obj["metadata"]["name"], obj["metadata"]["uid"])


def pod_labels(obj: Object) -> dict[str, str]:
    """Return the labels by which the pods are selected; they never change."""
    return {DEPLOYMENT_UID_LABEL: obj["metadata"]["uid"], ROLE_LABEL: SERVE_ROLE}


def selector_text(obj: Object) -> str:
    """Return the label selector of the pods as text."""
    return ",".join(f"{key}={value}" for key, value in sorted(pod_labels(obj).items()))


def labels(obj: Object) -> dict[str, str]:
    """Return the labels of every child."""
    return {
        **pod_labels(obj),
        MANAGED_BY_LABEL: MANAGED_BY,
        DEPLOYMENT_NAME_LABEL: obj["metadata"]["name"],
    }


def child(
    obj: Object, kind: str, api_version: str, name: str, annotations: Mapping[str, str] | None = None, **body: object
) -> Object:
    """Return the body of a child that is deleted with the ModelDeployment."""
    metadata = obj["metadata"]
    owner = {
        "apiVersion": API_VERSION,
        "kind": "ModelDeployment",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": labels(obj),
            **({"annotations": dict(annotations)} if annotations else {}),
            "ownerReferences": [owner],
        },
        **body,
    }
