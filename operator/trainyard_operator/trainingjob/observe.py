"""Reads one TrainingJob and its children from the informer cache."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from trainyard_crds.constants import ROLE_LABEL, child_name
from trainyard_kube.paths import Object
from trainyard_kube.resource import Key
from trainyard_kube.store import Store
from trainyard_operator.reconcile.fields import owned_by
from trainyard_operator.trainingjob.children.render import CHECK_ROLE, EXPORT_ROLE, TRAIN_ROLE
from trainyard_operator.trainingjob.model import Observed
from trainyard_operator.trainingjob.resources import ResourceKind
from trainyard_operator.trainingjob.spec import SpecCache


class Observer:
    """Reads TrainingJobs and their children from the informer cache.

    Args:
        store: The cache.
    """

    def __init__(self, store: Store) -> None:
        self._store, self._specs = store, SpecCache()

    def observe(self, key: Key, unreachable_nodes: Mapping[str, str] = MappingProxyType({})) -> Observed | None:
        """Return the TrainingJob of a key with its children; None when it is gone.

        Args:
            key: The TrainingJob's.
            unreachable_nodes: Unreachable nodes, and since when (API timestamps).
        """
        job = self._store.get(key)
        if job is None:
            return None
        uid, (spec, spec_error) = job["metadata"]["uid"], self._specs.parse(job)
        name = child_name(key.name, uid)
        return Observed(
            obj=job,
            spec=spec,
            spec_error=spec_error,
            child=next((child for child in self._jobs(uid) if child["metadata"]["name"] == name), None),
            pods=self._pods(uid, TRAIN_ROLE),
            check=next(iter(self._jobs(uid, CHECK_ROLE)), None),
            check_pods=self._pods(uid, CHECK_ROLE),
            export_jobs=tuple(self._jobs(uid, EXPORT_ROLE)),
            export_pods=self._pods(uid, EXPORT_ROLE),
            unreachable_nodes=unreachable_nodes,
        )

    def _jobs(self, uid: str, role: str | None = None) -> list[Object]:
        """Return the Jobs of an owner; the training Job has its name, so its labels do not matter."""
        selected = {} if role is None else {ROLE_LABEL: role}
        return [child for child in self._store.children(ResourceKind.JOBS, uid, selected) if owned_by(child, uid)]

    def _pods(self, uid: str, role: str) -> tuple[Object, ...]:
        return tuple(self._store.children(ResourceKind.PODS, uid, {ROLE_LABEL: role}))
