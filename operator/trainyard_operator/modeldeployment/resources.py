"""What the operator keeps of ModelDeployments and of their children but the pods."""

from __future__ import annotations

from functools import partial

from trainyard_crds.common import GROUP, VERSION
from trainyard_crds.constants import MANAGED_BY, MANAGED_BY_LABEL, ROLE_LABEL
from trainyard_crds.serving import (
    ADAPTER_SET_ANNOTATION,
    DEPLOYMENT_UID_LABEL,
    SERVE_ROLE,
    SERVING_CONFIG_ANNOTATION,
)
from trainyard_kube import paths
from trainyard_kube.paths import Object
from trainyard_kube.resource import Key, StoredSpec
from trainyard_operator.reconcile.applied_hash import APPLIED_ANNOTATION

MODEL_DEPLOYMENTS = "modeldeployments"
COLLECTION = f"/apis/{GROUP}/{VERSION}/{{namespace}}modeldeployments"
DEPLOYMENTS, BUDGETS = "/apis/apps/v1/{namespace}deployments", "/apis/policy/v1/{namespace}poddisruptionbudgets"
ROUTES = "/apis/gateway.networking.k8s.io/v1/{namespace}httproutes"
SLICES = "/apis/discovery.k8s.io/v1/{namespace}endpointslices"
CHILD_KINDS = {
    "configmaps": "ConfigMap",
    "services": "Service",
    "poddisruptionbudgets": "PodDisruptionBudget",
    "endpointslices": "EndpointSlice",
}
"""Kinds by plural name of the children that are applied and have no state of their own."""
_METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "labels",
    "ownerReferences",
)
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_CONDITION = ("type", "status", "reason", "message")
_CONTAINER = ("name", "state", "lastState", "ready", "restartCount")
_STATUS = ("observedGeneration", "replicas", "updatedReplicas", "readyReplicas", "unavailableReplicas")


def deployment_key(namespace: str, name: str) -> Key:
    """Return the key of a ModelDeployment."""
    return Key(MODEL_DEPLOYMENTS, namespace, name)


def trim_model_deployment(obj: Object) -> Object:
    """Return a ModelDeployment without managed fields and without the annotation that repeats the whole object."""
    metadata = obj["metadata"]
    kept = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != _LAST_APPLIED}
    return {
        "apiVersion": obj.get("apiVersion"),
        "kind": obj.get("kind"),
        "metadata": _pick(metadata, _METADATA) | ({"annotations": kept} if kept else {}),
        "spec": obj.get("spec") or {},
        "status": obj.get("status") or {},
    }


def trim_child(kind: str, obj: Object) -> Object:
    """Return what shows whether a child is as it was applied."""
    metadata = obj["metadata"]
    applied = _pick(metadata.get("annotations") or {}, (APPLIED_ANNOTATION,))
    return {"kind": kind, "metadata": _pick(metadata, _METADATA) | ({"annotations": applied} if applied else {})}


def trim_deployment(obj: Object) -> Object:
    """Return the Deployment's replicas, wanted and observed, and what shows whether it is as it was applied."""
    conditions = [_pick(entry, _CONDITION) for entry in (obj.get("status") or {}).get("conditions") or []]
    return {
        **trim_child("Deployment", obj),
        "spec": _pick(obj.get("spec") or {}, ("replicas",)),
        "status": _pick(obj.get("status") or {}, _STATUS) | {"conditions": conditions},
    }


def trim_pod(obj: Object) -> Object:
    """Return what decisions need of a replica's pod; its environment and its volumes are not kept."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    annotations = _pick(metadata.get("annotations") or {}, (ADAPTER_SET_ANNOTATION, SERVING_CONFIG_ANNOTATION))
    kept: Object = _pick(status, ("phase", "reason", "message", "podIP"))
    conditions = [_pick(entry, _CONDITION) for entry in status.get("conditions") or []]
    for field in ("initContainerStatuses", "containerStatuses"):
        entries = [_pick(entry, _CONTAINER) for entry in status.get(field) or []]
        kept |= {field: entries} if entries else {}
    return {
        "metadata": _pick(metadata, _METADATA) | ({"annotations": annotations} if annotations else {}),
        "spec": _pick(obj.get("spec") or {}, ("nodeName",)),
        "status": kept | ({"conditions": conditions} if conditions else {}),
    }


def owner_label(obj: Object) -> str:
    """Return the UID of the ModelDeployment of a pod, which belongs to a ReplicaSet."""
    return str((obj["metadata"].get("labels") or {}).get(DEPLOYMENT_UID_LABEL, ""))


def owner_uid(obj: Object) -> str:
    """Return the UID of the ModelDeployment of a child."""
    references = obj["metadata"].get("ownerReferences") or []
    owners = [one["uid"] for one in references if one.get("controller") and one.get("kind") == "ModelDeployment"]
    return str(owners[0]) if owners else owner_label(obj)


def _pick(mapping: Object, keys: tuple[str, ...]) -> Object:
    return {key: mapping[key] for key in keys if key in mapping}


def _state(obj: Object) -> str:
    conditions = (obj.get("status") or {}).get("conditions") or []
    ready = next((entry["status"] for entry in conditions if entry["type"] == "Ready"), "Unknown")
    return {"True": "Ready", "False": "NotReady"}.get(ready, "Unknown")


_LABELS = {MANAGED_BY_LABEL: MANAGED_BY, ROLE_LABEL: SERVE_ROLE}
SPECS = (
    StoredSpec(kind=MODEL_DEPLOYMENTS, collection=COLLECTION, trim=trim_model_deployment, state=_state),
    StoredSpec(kind="deployments", collection=DEPLOYMENTS, labels=_LABELS, trim=trim_deployment, owner_uid=owner_uid),
    *(
        StoredSpec(
            kind=plural,
            collection=collection,
            labels=_LABELS,
            trim=partial(trim_child, CHILD_KINDS[plural]),
            owner_uid=owner_uid,
        )
        for plural, collection in (
            ("configmaps", paths.CONFIG_MAPS),
            ("services", paths.SERVICES),
            ("poddisruptionbudgets", BUDGETS),
            ("endpointslices", SLICES),
        )
    ),
)
