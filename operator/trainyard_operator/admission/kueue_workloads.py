"""Informer of Kueue's Workloads, and requests for positions in its queues.

The Workloads are watched directly: kopf does not detect a kind that is installed later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from trainyard_kube.cache import Cache
from trainyard_kube.client import KubeClient
from trainyard_kube.clock import monotonic
from trainyard_kube.errors import ApiError, ForbiddenError, NotFoundError, ServerError
from trainyard_kube.informer import Informer
from trainyard_kube.paths import Object
from trainyard_kube.resource import ResourceSpec
from trainyard_kube.watch import DirectWatch
from trainyard_operator.queue.kueue_workload import HELD_ANNOTATION, WORKLOAD_JOB_LABEL, is_finished

logger = logging.getLogger(__name__)

WORKLOADS = "/apis/kueue.x-k8s.io/v1beta2/{namespace}workloads"
_VISIBILITY = "/apis/visibility.kueue.x-k8s.io/{version}/namespaces/{namespace}/localqueues/{queue}/pendingworkloads"
_VERSIONS = ("v1beta2", "v1beta1")
_ABSENT = (
    "Kueue is not there: the API server does not serve kueue.x-k8s.io/v1beta2. The administrator installs Kueue 0.16 "
    "or newer, or sets the chart value queue.mode to Builtin; the job waits and needs no change."
)
_FORBIDDEN = (
    "The operator may not watch Kueue's Workloads. The administrator upgrades the chart with queue.mode=Kueue, which "
    "brings the permission. The API server says: {0}"
)


class WorkloadFeed:
    """The unfinished Workloads of batch Jobs, by the UID of their Job.

    Args:
        kube: The API server.
        on_change: Called with a Job's UID after a change of its Workload.
        on_availability: Called after Kueue became available or unavailable.

    Attributes:
        problem: Why there are no Workloads, a sentence; None while they can be watched.
        synced: Whether it is known if there is a problem.
    """

    def __init__(
        self, kube: KubeClient, *, on_change: Callable[[str], None], on_availability: Callable[[], None]
    ) -> None:
        self._on_change, self._on_availability = on_change, on_availability
        spec = ResourceSpec[Object](
            kind="workloads", collection=WORKLOADS, labels={WORKLOAD_JOB_LABEL: None}, trim=_trim
        )
        self._by_job: dict[str, Object] = {}
        self._cache = Cache(_trim, self._index)
        self._watch = DirectWatch(
            kube, Informer(kube, spec, self._cache, monotonic), monotonic, on_state=self._set_state
        )
        self.problem: str | None = None
        self.synced = False

    def of(self, job_uid: str) -> Object | None:
        """Return the Workload of a Job, trimmed."""
        return self._by_job.get(job_uid)

    def put(self, obj: Object) -> None:
        """Store the answer to a patch of a Workload."""
        self._cache.put(obj)

    async def run(self) -> None:
        """Watch until cancelled, also while Kueue is not installed."""
        await self._watch.run()

    def _index(self, _uid: str, before: Object | None, after: Object | None) -> None:
        workload = after or before
        assert workload is not None
        job_uid = _job_uid(workload)
        known = self._by_job.get(job_uid)
        if after is not None:
            self._by_job[job_uid] = after
        elif known is not None and known["metadata"]["uid"] == workload["metadata"]["uid"]:
            del self._by_job[job_uid]
        self._on_change(job_uid)

    def _set_state(self, error: ApiError | None) -> None:
        problem = None
        if error is not None:
            self._cache.clear()
            self._by_job.clear()
            problem = _FORBIDDEN.format(error.message) if isinstance(error, ForbiddenError) else _ABSENT
        if self.synced and problem == self.problem:
            return
        if problem is not None:
            logger.warning("%s", problem)
        else:
            logger.info("Kueue is available, %d unfinished Workloads of Jobs", len(self._by_job))
        self.synced, self.problem = True, problem
        self._on_availability()


class Visibility:
    """Kueue's visibility API: the pending Workloads of a LocalQueue, in order.

    Args:
        kube: The API server.
    """

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self._warned = False

    async def pending(self, namespace: str, queue: str) -> list[Object] | None:
        """Return the pending Workloads of a LocalQueue; None if the API does not answer, which is logged once."""
        problem: ApiError | None = None
        for version in _VERSIONS:
            url = _VISIBILITY.format(version=version, namespace=namespace, queue=queue)
            try:
                answer = await self._kube.get(url)
            except (NotFoundError, ForbiddenError, ServerError) as error:
                problem = problem or error
                continue
            except ApiError as error:
                problem = error
                break
            items: list[Object] = answer.get("items") or []
            return items
        if not self._warned:
            self._warned = True
            logger.warning("positions in Kueue's queues are unknown, its visibility API does not answer: %s", problem)
        return None


def _trim(obj: Object) -> Object | None:
    """Return what decisions need of an unfinished Workload; its pod sets, the largest part, are not kept."""
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    annotations = metadata.get("annotations") or {}
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp", "labels")
    workload = {
        "metadata": {
            **{key: metadata[key] for key in kept if key in metadata},
            "annotations": {key: annotations[key] for key in (HELD_ANNOTATION,) if key in annotations},
        },
        "spec": {key: spec[key] for key in ("active", "queueName") if key in spec},
        "status": {key: status[key] for key in ("conditions", "requeueState", "admissionChecks") if key in status},
    }
    return workload if _job_uid(workload) and not is_finished(workload) else None


def _job_uid(workload: Object) -> str:
    return str((workload["metadata"].get("labels") or {}).get(WORKLOAD_JOB_LABEL, ""))
