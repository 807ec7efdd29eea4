"""Reads one ModelDeployment, its children and the TrainingJobs that it names from the informer cache."""

from __future__ import annotations

from collections.abc import Callable

from trainyard_crds.constants import ROLE_LABEL
from trainyard_crds.serving import SERVE_ROLE
from trainyard_kube.paths import Object
from trainyard_kube.resource import Key
from trainyard_kube.store import Store
from trainyard_operator.modeldeployment.model import Observed
from trainyard_operator.modeldeployment.resolve import named_jobs
from trainyard_operator.modeldeployment.resources import CHILD_KINDS
from trainyard_operator.modeldeployment.spec import parse_spec
from trainyard_operator.reconcile.fields import owned_by

_TRAINING_JOBS = "trainingjobs"


class Observer:
    """Reads ModelDeployments from the informer cache.

    Args:
        store: The cache.
        reader_problem: Returns why files of a claim cannot be read now, by namespace and claim; None if they can.
        activators: Returns the addresses of the gateway's pods.
    """

    def __init__(
        self,
        store: Store,
        reader_problem: Callable[[str, str], str | None] = lambda *_: None,
        activators: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        self._store, self._reader_problem, self._activators = store, reader_problem, activators

    def observe(self, key: Key) -> Observed | None:
        """Return the ModelDeployment of a key with its children; None when it is gone."""
        obj = self._store.get(key)
        if obj is None:
            return None
        uid, (spec, error) = obj["metadata"]["uid"], parse_spec(obj["spec"])
        found = {name: self._store.get(Key(_TRAINING_JOBS, key.namespace, name)) for name in named_jobs(spec)}
        applied = [child for plural in CHILD_KINDS for child in self._children(plural, uid)]
        pods = self._store.children("pods", uid, {ROLE_LABEL: SERVE_ROLE})
        return Observed(
            obj=obj,
            spec=spec,
            spec_error=error,
            jobs={name: job for name, job in found.items() if job is not None},
            deployment=next(iter(self._children("deployments", uid)), None),
            applied=tuple(applied),
            pods=tuple(pod for pod in pods if not pod.get("gone")),
            activators=self._activators(),
            reader_problem=self._reader_problem,
        )

    def gone_pods(self, key: Key) -> list[Object]:
        """Return deleted pods that the cache still has."""
        obj = self._store.get(key)
        if obj is None:
            return []
        pods = self._store.children("pods", obj["metadata"]["uid"], {ROLE_LABEL: SERVE_ROLE})
        return [pod for pod in pods if pod.get("gone")]

    def _children(self, plural: str, uid: str) -> list[Object]:
        return [child for child in self._store.children(plural, uid, {}) if owned_by(child, uid)]
