"""ModelDeployments as a kind: their resources, how they are observed, and how they are planned."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial

from trainyard_crds.serving import DEPLOYMENT_UID_LABEL
from trainyard_kube.paths import CONFIG_MAPS, PODS, SERVICES
from trainyard_kube.resource import Key
from trainyard_kube.store import Store
from trainyard_operator.modeldeployment.model import REPLICA_STATE, Observed, ServingSettings
from trainyard_operator.modeldeployment.observe import Observer
from trainyard_operator.modeldeployment.plan import Admit, claims_to_read, plan
from trainyard_operator.modeldeployment.resources import (
    BUDGETS,
    COLLECTION,
    DEPLOYMENTS,
    MODEL_DEPLOYMENTS,
    ROUTES,
    SLICES,
    deployment_key,
)
from trainyard_operator.reconcile.kind import Kind, Resource
from trainyard_operator.reconcile.plan import Plan


class ModelDeployments(Kind[Observed]):
    """The kind ModelDeployment.

    Args:
        store: The informer cache; ingests the answers to the operator's own writes at once.
        observer: Reads it.
        settings: Settings that go into children.
        admit: Decides whether one more replica with GPUs may run.
        replica_state: Asks the proxy of the pod with an address for its state; None if it does not answer.
        request_reader: Called with namespace and claim while a replica has to read files of a run there.
    """

    uid_label = DEPLOYMENT_UID_LABEL

    def __init__(
        self,
        store: Store,
        observer: Observer,
        *,
        settings: ServingSettings,
        admit: Admit,
        replica_state: Callable[[str], Awaitable[object]],
        request_reader: Callable[[str, str], None],
    ) -> None:
        self._store, self._observer, self._settings = store, observer, settings
        self._admit, self._request_reader = admit, request_reader
        self.lookups = {REPLICA_STATE: replica_state}
        self.resource = Resource(
            kind="ModelDeployment",
            collection=COLLECTION,
            ingest=partial(store.put, MODEL_DEPLOYMENTS),
            remove=partial(store.remove, MODEL_DEPLOYMENTS),
        )
        self.related = (
            Resource(kind="Deployment", collection=DEPLOYMENTS, ingest=partial(store.put, "deployments")),
            Resource(kind="Pod", collection=PODS, ingest=partial(store.put, "pods")),
            Resource(kind="ConfigMap", collection=CONFIG_MAPS, ingest=partial(store.put, "configmaps")),
            Resource(kind="Service", collection=SERVICES, ingest=self._ingest_service),
            Resource(kind="PodDisruptionBudget", collection=BUDGETS, ingest=partial(store.put, "poddisruptionbudgets")),
            Resource(kind="EndpointSlice", collection=SLICES, ingest=partial(store.put, "endpointslices")),
            Resource(kind="HTTPRoute", collection=ROUTES),
        )

    def observe(self, key: Key) -> Observed | None:
        """Return the ModelDeployment of a key with its children; None when it is gone."""
        return self._observer.observe(key)

    def plan(self, observed: Observed, now: datetime) -> Plan:
        """Decide what to do about one ModelDeployment."""
        return plan(observed, self._settings, now, self._admit)

    def carried_out(self, observed: Observed) -> None:
        """Ask for the artifact readers that replicas need, and forget deleted pods."""
        for claim in claims_to_read(observed):
            self._request_reader(observed.namespace, claim)
        key = deployment_key(observed.namespace, observed.name)
        self._store.forget_deleted("pods", observed.uid, self._observer.gone_pods(key))

    def _ingest_service(self, service: dict[str, object]) -> None:
        """Keep a Service of ours; the look-up before the first one may find another owner's."""
        metadata = service["metadata"]
        assert isinstance(metadata, dict)
        if (metadata.get("labels") or {}).get(DEPLOYMENT_UID_LABEL):
            self._store.put("services", service)
