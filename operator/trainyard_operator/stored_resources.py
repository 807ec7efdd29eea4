"""All resources in the informer cache: owners and children of every kind, and the pods, which share one informer."""

from __future__ import annotations

from trainyard_crds.constants import MANAGED_BY, MANAGED_BY_LABEL, ROLE_LABEL
from trainyard_crds.serving import SERVE_ROLE
from trainyard_kube import paths
from trainyard_kube.paths import Object
from trainyard_kube.resource import StoredSpec
from trainyard_operator.modeldeployment import resources as modeldeployment
from trainyard_operator.trainingjob import resources as trainingjob


def trim_pod(obj: Object) -> Object:
    """Return what decisions of its kind need of a pod."""
    return modeldeployment.trim_pod(obj) if _serves(obj) else trainingjob.trim_pod(obj)


def _owner_uid(obj: Object) -> str:
    return modeldeployment.owner_label(obj) if _serves(obj) else trainingjob.owner_uid(obj)


def _serves(pod: Object) -> bool:
    return (pod["metadata"].get("labels") or {}).get(ROLE_LABEL) == SERVE_ROLE


SPECS = (
    *trainingjob.SPECS,
    *modeldeployment.SPECS,
    StoredSpec(
        kind="pods",
        collection=paths.PODS,
        labels={MANAGED_BY_LABEL: MANAGED_BY},
        trim=trim_pod,
        owner_uid=_owner_uid,
        keep_deleted=True,
    ),
)
