"""The Kueue admission controller: reads decisions from Kueue's Workloads and publishes queue positions."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from trainyard_kube.client import KubeClient
from trainyard_kube.resource import Key
from trainyard_kube.token_bucket import TokenBucket
from trainyard_operator.admission.candidate import Candidate, ObserveCandidate
from trainyard_operator.admission.decision import Admission
from trainyard_operator.admission.kueue.messages import MessageLimiter
from trainyard_operator.admission.kueue_workloads import Visibility, WorkloadFeed
from trainyard_operator.queue.inventory import Inventory
from trainyard_operator.queue.position import PUBLISH_INTERVAL, PUBLISH_RATE, QueuePosition, rounded
from trainyard_operator.queue.quota import Quotas

Object = dict[str, Any]


class _Decided(NamedTuple):
    """The last decision about a job."""

    job_uid: str
    summary: Object
    admission: Admission


class KueueAdmission:
    """Admission by Kueue; implements `AdmissionController`.

    Args:
        kube: The API server.
        observe: Reads a job and its children from the cache.
        add: Queues a job for reconciliation.
        now: The time.
        clock: Monotonic seconds.
        default_queue: LocalQueue of jobs that name none.

    Attributes:
        inventory: Nodes and their GPUs, for metrics and the debug endpoint only.
        quotas: Not used: Kueue and the API server apply quotas.
    """

    def __init__(
        self,
        kube: KubeClient,
        *,
        observe: ObserveCandidate,
        add: Callable[[Key], None],
        now: Callable[[], datetime],
        clock: Callable[[], float],
        default_queue: str | None,
    ) -> None:
        self._observe, self._add, self._now, self._default_queue = observe, add, now, default_queue
        self.inventory, self.quotas = Inventory(), Quotas()
        self._workloads = WorkloadFeed(
            kube, on_change=self._workload_changed, on_availability=self._availability_changed
        )
        self._visibility = Visibility(kube)
        self._clock, self._budget = clock, TokenBucket(PUBLISH_RATE, PUBLISH_RATE)
        self._messages = MessageLimiter(clock, self._budget)
        self._keys: dict[str, Key] = {}
        self._job_uids: dict[Key, str] = {}
        self._decided: dict[Key, _Decided] = {}
        self._exact: dict[str, QueuePosition] = {}
        self._published: dict[str, QueuePosition] = {}

    # --- changes ------------------------------------------------------------------------------------------------------

    def mark_dirty(self, key: Key) -> None:
        """Note that a job changed, and which child Job is its own now."""
        candidate = self._observe(key)
        job_uid = (candidate.job_uid if candidate is not None else None) or ""
        before = self._job_uids.get(key, "")
        if before and before != job_uid:
            self._forget(before)
        if candidate is None or not candidate.is_wanted:
            self._decided.pop(key, None)
        if job_uid:
            if candidate is not None and job_uid not in self._keys:
                self._restore(job_uid, candidate)
            self._job_uids[key], self._keys[job_uid] = job_uid, key
        else:
            self._job_uids.pop(key, None)

    def capacity_changed(self) -> None:
        """Ignore nodes, pods and quotas: Kueue watches them itself."""

    def observe_workload(self, workload: Object) -> None:
        """Take the API server's response to a change of a Workload."""
        self._workloads.put(workload)

    def _restore(self, job_uid: str, candidate: Candidate) -> None:
        """Restore what an earlier process published."""
        published = candidate.published
        if published is None:
            return
        self._messages.restore(job_uid, published.reason)
        if published.position is not None:
            self._published[job_uid] = published.position

    def _forget(self, job_uid: str) -> None:
        self._keys.pop(job_uid, None)
        self._exact.pop(job_uid, None)
        self._published.pop(job_uid, None)
        self._messages.forget(job_uid)

    def _workload_changed(self, job_uid: str) -> None:
        if job_uid in self._keys:
            self._add(self._keys[job_uid])

    def _availability_changed(self) -> None:
        for key in {*self._decided, *self._job_uids}:
            self._add(key)

    # --- decisions ----------------------------------------------------------------------------------------------------

    def is_admitted_pending(self, _key: Key) -> bool:
        """Return False: Kueue resumes the Jobs that it admits."""
        return False

    def is_waiting(self, key: Key) -> bool:
        """Return whether a job waits for admission."""
        decided = self._decided.get(key)
        return decided is not None and not decided.admission.admitted

    def decide(self, candidate: Candidate) -> Admission:
        """Return Kueue's decision about one job."""
        key, job_uid = candidate.key, candidate.job_uid or ""
        admission = candidate.kueue_admission(
            default_queue=self._default_queue,
            problem=self._workloads.problem,
            workload=self._workloads.of(job_uid),
            position=self._published.get(job_uid),
            now=self._now(),
        )
        if not self._workloads.synced:
            admission = admission._replace(decided=False, admitted=False)
        admission = self._messages.limit(key, job_uid, admission)
        if candidate.is_wanted:
            self._decided[key] = _Decided(job_uid, _summary(candidate, admission), admission)
        return admission

    # --- positions ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Watch Workloads and refresh positions, without end."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._workloads.run())
            group.create_task(self._refresh_forever())

    async def _refresh_forever(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(PUBLISH_INTERVAL)

    async def refresh(self) -> None:
        """Request the positions of waiting jobs, once per LocalQueue, and publish what changed."""
        waiting = {key: decided for key, decided in self._decided.items() if not decided.admission.admitted}
        queued = {key: decided for key, decided in waiting.items() if self._workloads.of(decided.job_uid) is not None}
        exact: dict[str, QueuePosition] = {}
        for namespace, queue in {(key.namespace, decided.summary["pool"]) for key, decided in queued.items()}:
            exact |= positions(await self._visibility.pending(namespace, queue) or [])
        self._exact = exact
        for key in self._messages.take_deferred():
            self._add(key)
        for key, decided in waiting.items():
            if key not in queued:
                self._add(key)  # the message about a Job without a Workload depends on the time
            else:
                self._publish(key, decided.job_uid, exact.get(decided.job_uid))

    def _publish(self, key: Key, job_uid: str, exact: QueuePosition | None) -> None:
        position = None if exact is None else QueuePosition(rounded(exact.position), rounded(exact.length))
        before = self._published.get(job_uid)
        if position == before or (before is not None and not self._budget.try_take(self._clock())):
            return
        if position is None:
            del self._published[job_uid]
        else:
            self._published[job_uid] = position
        self._add(key)

    # --- metrics and debugging ----------------------------------------------------------------------------------------

    def count_waiting(self) -> dict[str, int]:
        """Return the number of waiting jobs by LocalQueue."""
        waiting = ((key, decided) for key, decided in self._decided.items() if not decided.admission.admitted)
        return dict(Counter(f"{key.namespace}/{decided.summary['pool']}" for key, decided in waiting))

    def describe(self) -> Object:
        """Return the waiting jobs by position, and the admitted jobs."""
        waiting = [(key, decided) for key, decided in self._decided.items() if not decided.admission.admitted]
        waiting.sort(key=self._order)
        return {
            "waiting": [self._row(key, decided) | _reason(decided.admission) for key, decided in waiting],
            "holding": [
                self._row(key, decided) for key, decided in self._decided.items() if decided.admission.admitted
            ],
        }

    def _order(self, entry: tuple[Key, _Decided]) -> tuple[str, str, bool, int, str]:
        key, decided = entry
        exact = self._exact.get(decided.job_uid)
        return key.namespace, decided.summary["pool"], exact is None, exact.position if exact else 0, key.name

    def _row(self, key: Key, decided: _Decided) -> Object:
        exact = self._exact.get(decided.job_uid)
        row = {"namespace": key.namespace, "name": key.name, **decided.summary}
        return row | (exact._asdict() if exact else {})


def positions(items: list[Object]) -> dict[str, QueuePosition]:
    """Return exact positions by Job UID from the items of the visibility API.

    A position counts in the ClusterQueue, which several LocalQueues may share, but the items are of one LocalQueue. So
    the length is at least the last position.
    """
    last = max((item["positionInClusterQueue"] + 1 for item in items), default=0)
    length = max(len(items), last)
    return {
        owner["uid"]: QueuePosition(item["positionInClusterQueue"] + 1, length)
        for item in items
        for owner in item["metadata"].get("ownerReferences", [])
    }


def _summary(candidate: Candidate, admission: Admission) -> Object:
    queue = admission.queue or {}
    return {"pool": str(queue.get("pool") or ""), **candidate.summary, "enqueuedAt": queue.get("enqueuedAt")}


def _reason(admission: Admission) -> Object:
    return {"reason": admission.reason, "message": admission.message}
