"""TrainingJobs as a kind: their resources, how they are observed, and how they are planned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial

from trainyard_crds.constants import JOB_UID_LABEL, TRAINING_JOBS
from trainyard_kube.paths import CLAIMS, CONFIG_MAPS, JOBS, PODS, SERVICES, Object
from trainyard_kube.resource import Key
from trainyard_kube.store import Store
from trainyard_operator.admission.kueue_workloads import WORKLOADS
from trainyard_operator.reconcile.kind import Kind, Resource
from trainyard_operator.reconcile.plan import Plan
from trainyard_operator.trainingjob.final_status import TERMINATION_FIELDS
from trainyard_operator.trainingjob.k8s_fields import is_gone
from trainyard_operator.trainingjob.model import Observed, RenderSettings
from trainyard_operator.trainingjob.observe import Observer
from trainyard_operator.trainingjob.plan import Admit, plan
from trainyard_operator.trainingjob.pods.gang_faults import is_recorded
from trainyard_operator.trainingjob.policies.post_run_exports import is_unfinished
from trainyard_operator.trainingjob.resources import ResourceKind, job_key
from trainyard_operator.trainingjob.run_identity import with_run_annotation


class TrainingJobs(Kind[Observed]):
    """The kind TrainingJob.

    Args:
        store: The informer cache; ingests the answers to the operator's own writes at once.
        observer: Reads it.
        settings: Settings that go into children.
        admit: Decides whether a job may start.
        ingest_workload: Takes the answer to each change of a Workload.
        unreachable_nodes: Nodes that are unreachable now, and since when (API timestamps).
    """

    uid_label = JOB_UID_LABEL
    untrusted_status = TERMINATION_FIELDS

    def __init__(
        self,
        store: Store,
        observer: Observer,
        *,
        settings: RenderSettings,
        admit: Admit,
        ingest_workload: Callable[[Object], None],
        unreachable_nodes: Mapping[str, str],
    ) -> None:
        self._store, self._observer, self._settings = store, observer, settings
        self._admit, self._unreachable_nodes = admit, unreachable_nodes
        self.resource = Resource(
            kind="TrainingJob",
            collection=TRAINING_JOBS,
            ingest=partial(store.put, ResourceKind.TRAINING_JOBS),
            remove=partial(store.remove, ResourceKind.TRAINING_JOBS),
        )
        self.related = (
            Resource(kind="Job", collection=JOBS, ingest=partial(store.put, ResourceKind.JOBS)),
            Resource(kind="Pod", collection=PODS, ingest=partial(store.put, ResourceKind.PODS)),
            Resource(kind="ConfigMap", collection=CONFIG_MAPS),
            Resource(kind="PersistentVolumeClaim", collection=CLAIMS),
            Resource(kind="Service", collection=SERVICES),
            Resource(kind="Workload", collection=WORKLOADS, ingest=ingest_workload),
        )

    def observe(self, key: Key) -> Observed | None:
        """Return the TrainingJob of a key with its children from the informer cache; None when it is gone."""
        return self._observer.observe(key, self._unreachable_nodes)

    def plan(self, observed: Observed, now: datetime) -> Plan:
        """Decide what to do about one TrainingJob."""
        return with_run_annotation(observed, plan(observed, self._settings, now, self._admit))

    def carried_out(self, observed: Observed) -> None:
        """Forget deleted pods whose end is recorded in the status."""
        key = job_key(observed.namespace, observed.name)
        status = (self._store.get(key) or {}).get("status") or {}
        recorded = [pod for pod in observed.pods if is_recorded(pod, status)]
        if not any(is_unfinished(entry) for entry in status.get("exports", [])):
            recorded += observed.export_pods
        self._store.forget_deleted(ResourceKind.PODS, observed.uid, filter(is_gone, recorded))
