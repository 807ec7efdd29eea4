"""Reads one TrainingJob and its children from the Store."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from trainyard_crds.constants import child_name
from trainyard_operator.kube.store import Key, ResourceKind, Store
from trainyard_operator.trainingjob.children.render import CHECK_ROLE, EXPORT_ROLE, TRAIN_ROLE
from trainyard_operator.trainingjob.k8s_fields import owned_by
from trainyard_operator.trainingjob.model import Object, Observed


def observe(store: Store, key: Key, silent_nodes: Mapping[str, str] = MappingProxyType({})) -> Observed | None:
    """The job of a key with its children as they were last seen; None when it is gone.

    Args:
        store: What was seen.
        key: The job's.
        silent_nodes: Nodes that do not answer, and since when (API timestamps).
    """
    job = store.job(key)
    if job is None:
        return None
    uid = job["metadata"]["uid"]

    def own(role: str) -> list[Object]:
        return [child for child in store.children(ResourceKind.JOBS, uid, role) if owned_by(child, uid)]

    name = child_name(key.name, uid)
    return Observed(
        job=job,
        child=next((child for child in own(TRAIN_ROLE) if child["metadata"]["name"] == name), None),
        pods=tuple(store.children(ResourceKind.PODS, uid, TRAIN_ROLE)),
        check=next(iter(own(CHECK_ROLE)), None),
        check_pods=tuple(store.children(ResourceKind.PODS, uid, CHECK_ROLE)),
        export_jobs=tuple(own(EXPORT_ROLE)),
        export_pods=tuple(store.children(ResourceKind.PODS, uid, EXPORT_ROLE)),
        silent_nodes=silent_nodes,
    )
