"""ModelDeployments with GPUs in the queue: the replicas that run hold GPUs, and one more replica at a time waits.

Both implement `Candidate`. So a ModelDeployment has two keys in the queue: its own, and that of its next replica.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime

from trainyard_kube.paths import Object
from trainyard_kube.resource import Key
from trainyard_operator.admission.candidate import Candidate, Grant, Published, QueueEntry, RunHistory
from trainyard_operator.admission.decision import Admission
from trainyard_operator.modeldeployment.model import Observed
from trainyard_operator.modeldeployment.replica_count import running_replicas, wanted_replicas
from trainyard_operator.modeldeployment.resources import MODEL_DEPLOYMENTS, deployment_key
from trainyard_operator.queue.models import Admitted, Basis, Request
from trainyard_operator.queue.pool import Pool, pool_of
from trainyard_operator.queue.position import QueuePosition
from trainyard_operator.queue.quota import pod_usage
from trainyard_operator.queue.reasons import Reason
from trainyard_operator.reconcile.fields import parse_time

_NEXT = "#next"
"""Ends the name in the key of a next replica; no object of the API can have such a name."""
_ENDED = ("Succeeded", "Failed")


def next_key(key: Key) -> Key:
    """Return the key of the next replica of a ModelDeployment."""
    return key._replace(name=key.name + _NEXT)


def owner_key(key: Key) -> Key:
    """Return the key of the object of a key in the queue."""
    return key._replace(name=key.name.removesuffix(_NEXT)) if key.kind == MODEL_DEPLOYMENTS else key


def candidate(key: Key, observed: Observed) -> Candidate:
    """Return what a key in the queue stands for."""
    return NextReplica(observed) if key.name.endswith(_NEXT) else RunningReplicas(observed)


@dataclass(frozen=True)
class _Replicas(ABC):
    """Replicas of a ModelDeployment as the queue sees them.

    Attributes:
        observed: The ModelDeployment and its children.
    """

    observed: Observed

    @property
    @abstractmethod
    def key(self) -> Key:
        """Its key in the queue."""

    @property
    @abstractmethod
    def uid(self) -> str:
        """Its UID in the queue."""

    @property
    def created(self) -> tuple[datetime, int]:
        """Creation time and resource version."""
        metadata = self.observed.obj["metadata"]
        return parse_time(metadata["creationTimestamp"]), int(metadata.get("resourceVersion", 0))

    @property
    def queue_status(self) -> Object:
        """Its `status.queue`."""
        return self.observed.status.get("queue") or {}

    @property
    def pool(self) -> Pool:
        """The GPU pool it uses."""
        return pool_of(self.observed.spec.resources)

    @property
    def summary(self) -> Object:
        """GPUs, nodes and priority, for the debug endpoint."""
        spec = self.observed.spec
        return {"gpus": spec.resources.gpus, "nodes": 1, "priority": spec.queue.priority}

    @property
    def job_uid(self) -> str | None:
        """UID of the Deployment; None without one."""
        found = self.observed.deployment
        return None if found is None else str(found["metadata"].get("uid", ""))

    def completed_run(self, now: datetime) -> float | None:
        """Return None: a replica has no end from which a run could be estimated."""
        return None

    def kueue_admission(
        self,
        *,
        default_queue: str | None,
        problem: str | None,
        workload: Object | None,
        position: QueuePosition | None,
        now: datetime,
    ) -> Admission:
        """Return that replicas are created: Kueue gates their pods itself, by the label of the Deployment."""
        return Admission(admitted=True, reason="Admitted", message="")

    def _request(self, replicas: int, enqueued_at: datetime) -> Request:
        spec = self.observed.spec
        resources = spec.resources
        return Request(
            uid=self.uid,
            namespace=self.observed.namespace,
            pool=self.pool,
            gpus=resources.gpus,
            nodes=replicas,
            priority=spec.queue.priority,
            enqueued_at=enqueued_at,
            pod_usage=pod_usage(resources.gpus, resources.gpu_resource, resources.cpu_limit, resources.memory_limit),
            has_job=True,
            preemptible=False,
        )


@dataclass(frozen=True)
class RunningReplicas(_Replicas):
    """The replicas that the Deployment has: they hold their GPUs until they are stopped, and are never preempted."""

    @property
    def key(self) -> Key:
        """The key of the ModelDeployment."""
        return deployment_key(self.observed.namespace, self.observed.name)

    @property
    def uid(self) -> str:
        """The UID of the ModelDeployment, which its pods have as label."""
        return self.observed.uid

    @property
    def enqueued_at(self) -> datetime | None:
        """The creation time."""
        return self.created[0]

    @property
    def published(self) -> Published | None:
        """None: they do not wait."""
        return None

    @property
    def is_wanted(self) -> bool:
        """Whether there are any."""
        return running_replicas(self.observed) > 0

    @property
    def is_running(self) -> bool:
        """Whether there are any."""
        return self.is_wanted

    @property
    def is_final(self) -> bool:
        """Whether there are none, so that the queue forgets them."""
        return not self.is_wanted

    def entry(
        self, *, enqueued_at: datetime, now: datetime, grant: Grant | None, preempted: bool, history: RunHistory
    ) -> QueueEntry:
        """Return that they hold GPUs, if they have any; the arguments are those of `Candidate.entry`."""
        running = running_replicas(self.observed)
        if not running or not self.observed.spec.resources.gpus:
            return QueueEntry()
        live = [pod for pod in self.observed.pods if (pod.get("status") or {}).get("phase") not in _ENDED]
        request = self._request(running, enqueued_at)
        held = Admitted(request=request, placement=(), admitted_at=self.created[0], live_pods=len(live))
        return QueueEntry(holding=held)


@dataclass(frozen=True)
class NextReplica(_Replicas):
    """One more replica than the Deployment has."""

    @property
    def key(self) -> Key:
        """The key of the next replica."""
        return next_key(deployment_key(self.observed.namespace, self.observed.name))

    @property
    def uid(self) -> str:
        """Another one for each replica, so that the admission of one is not that of the next."""
        return f"{self.observed.uid}/{running_replicas(self.observed)}"

    @property
    def enqueued_at(self) -> datetime | None:
        """Its queue time from the status."""
        recorded = self.queue_status.get("enqueuedAt")
        return parse_time(recorded) if recorded and self._waits() else None

    @property
    def published(self) -> Published | None:
        """What the status reports while it waits."""
        queue = self.queue_status
        if not self._waits():
            return None
        return Published(
            reason=Reason(queue["reason"], str(self.observed.status.get("message") or "")),
            position=QueuePosition(queue["position"], queue["length"]) if "position" in queue else None,
            start=parse_time(queue["estimatedStartTime"]) if "estimatedStartTime" in queue else None,
            basis=Basis(queue["estimateBasis"]) if "estimateBasis" in queue else None,
        )

    @property
    def is_wanted(self) -> bool:
        """Whether more replicas are wanted than there are."""
        return not self.observed.is_being_deleted and wanted_replicas(self.observed) > running_replicas(self.observed)

    @property
    def is_running(self) -> bool:
        """False: it does not exist yet."""
        return False

    @property
    def is_final(self) -> bool:
        """Whether none is wanted, so that the queue forgets it."""
        return not self.is_wanted

    def entry(
        self, *, enqueued_at: datetime, now: datetime, grant: Grant | None, preempted: bool, history: RunHistory
    ) -> QueueEntry:
        """Return that it waits, or that it holds the GPUs it was admitted to; arguments as of `Candidate.entry`."""
        if not self.is_wanted or not self.observed.spec.resources.gpus:
            return QueueEntry()
        request = self._request(1, enqueued_at)
        if grant is None or not grant.pending:
            return QueueEntry(waiting=request)
        held = Admitted(request=request, placement=grant.nodes, admitted_at=grant.admitted_at)
        return QueueEntry(holding=held)

    def _waits(self) -> bool:
        return bool(self.queue_status.get("reason"))
