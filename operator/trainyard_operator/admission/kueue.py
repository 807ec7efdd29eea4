"""Kueue as the queue: answers `plan` from Kueue's Workloads and tells places; decides nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from trainyard_kube.client import KubeClient
from trainyard_kube.paths import Object
from trainyard_kube.token_bucket import TokenBucket
from trainyard_operator.admission.decision import Admission
from trainyard_operator.admission.kueue_workloads import Visibility, WorkloadFeed
from trainyard_operator.kube.store import Key
from trainyard_operator.queue.inventory import Inventory
from trainyard_operator.queue.position import APART, TOLD_PER_SECOND, Place, rounded
from trainyard_operator.trainingjob.kueue_adapter import answer
from trainyard_operator.trainingjob.model import Observed
from trainyard_operator.trainingjob.queue_adapter import is_wanted, last_told


class _Seen(NamedTuple):
    """A job as it was last answered for."""

    child: str
    request: Object
    admission: Admission


class _Said(NamedTuple):
    """What a waiting job was told of Kueue's words, and when."""

    reason: str
    message: str
    at: float


class KueueQueue:
    """Stands where the builtin queue does.

    Args:
        kube: The API server.
        observe: The job of a key as it is known now; None when it is gone.
        add: Takes the key of each job for which Kueue decided something.
        now: The time.
        clock: Monotonic seconds.
        default: LocalQueue of jobs that name none.

    Attributes:
        inventory: Nodes and their GPUs, for people only.
        feed: Kueue's Workloads.
    """

    def __init__(
        self,
        kube: KubeClient,
        *,
        observe: Callable[[Key], Observed | None],
        add: Callable[[Key], None],
        now: Callable[[], datetime],
        clock: Callable[[], float],
        default: str | None,
    ) -> None:
        self._observe, self._add, self._now, self._clock, self._default = observe, add, now, clock, default
        self.inventory = Inventory()
        self.feed = WorkloadFeed(kube, changed=self._changed, turned=self._turned)
        self._visibility = Visibility(kube)
        self._budget = TokenBucket(TOLD_PER_SECOND, TOLD_PER_SECOND)
        self._keys: dict[str, Key] = {}
        self._children: dict[Key, str] = {}
        self._seen: dict[Key, _Seen] = {}
        self._exact: dict[str, Place] = {}
        self._told: dict[str, Place] = {}
        self._said: dict[str, _Said] = {}
        self._late: set[Key] = set()

    # --- news ---------------------------------------------------------------------------------------------------------

    def look(self, key: Key) -> None:
        """A job has news: remember whose Job is whose."""
        observed = self._observe(key)
        child = observed.child["metadata"]["uid"] if observed is not None and observed.child else ""
        before = self._children.get(key, "")
        if before and before != child:
            self._forget(before)
        if observed is None or not is_wanted(observed):
            self._seen.pop(key, None)
        if child:
            if observed is not None and child not in self._keys:
                self._recall(child, observed)
            self._children[key], self._keys[child] = child, key
        else:
            self._children.pop(key, None)

    def _recall(self, child: str, observed: Observed) -> None:
        told = last_told(observed)
        if told is None:
            return
        self._said[child] = _Said(*told.reason, at=-APART)
        if told.place is not None:
            self._told[child] = told.place

    def _forget(self, child: str) -> None:
        self._keys.pop(child, None)
        self._exact.pop(child, None)
        self._told.pop(child, None)
        self._said.pop(child, None)

    def wake(self) -> None:
        """Nodes or foreign pods have news: Kueue's business."""

    def _changed(self, job_uid: str) -> None:
        if job_uid in self._keys:
            self._add(self._keys[job_uid])

    def _turned(self) -> None:
        for key in {*self._seen, *self._children}:
            self._add(key)

    # --- answers ------------------------------------------------------------------------------------------------------

    def is_let_in(self, _key: Key) -> bool:
        """Whether a Job has yet to be made or resumed for a job that was let in: Kueue resumes them itself."""
        return False

    def is_waiting(self, key: Key) -> bool:
        """Whether a job was looked at and waits."""
        seen = self._seen.get(key)
        return seen is not None and not seen.admission.admitted

    def admission(self, observed: Observed) -> Admission:
        """The answer for `plan`."""
        child = observed.child["metadata"]["uid"] if observed.child else ""
        found = answer(
            observed,
            default=self._default,
            problem=self.feed.problem,
            workload=self.feed.of(child),
            place=self._told.get(child),
            now=self._now(),
        )
        if not self.feed.listed:
            found = found._replace(decided=False, admitted=False)
        metadata = observed.job["metadata"]
        key = Key(metadata["namespace"], metadata["name"])
        found = self._steady(key, child, found)
        if is_wanted(observed):
            self._seen[key] = _Seen(child, _request(observed, found), found)
        return found

    def _steady(self, key: Key, child: str, found: Admission) -> Admission:
        """Kueue's words: how much quota is missing changes with each start, for all, and is told now and then."""
        said = self._said.get(child)
        if found.admitted or not child:
            self._said.pop(child, None)
            return found
        if said is not None and said.reason == found.reason:
            if said.message == found.message:
                return found
            if self._clock() - said.at < APART or not self._budget.try_take(self._clock()):
                self._late.add(key)
                return found._replace(message=said.message)
        self._said[child] = _Said(found.reason, found.message, self._clock())
        return found

    # --- places -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow Kueue for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.feed.run())
            group.create_task(self._keep_telling())

    async def _keep_telling(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(APART)

    async def refresh(self) -> None:
        """Ask for the places of those that wait, one request for each LocalQueue, and tell what changed."""
        waiting = {key: seen for key, seen in self._seen.items() if not seen.admission.admitted}
        queued = {key: seen for key, seen in waiting.items() if self.feed.of(seen.child) is not None}
        exact: dict[str, Place] = {}
        for namespace, queue in {(key.namespace, seen.request["pool"]) for key, seen in queued.items()}:
            exact |= places(await self._visibility.pending(namespace, queue) or [])
        self._exact = exact
        late, self._late = self._late, set()
        for key in late:
            self._add(key)
        for key, seen in waiting.items():
            if key not in queued:
                self._add(key)  # what is said of a Job without a Workload changes with the time
            else:
                self._tell(key, seen.child, exact.get(seen.child))

    def _tell(self, key: Key, child: str, place: Place | None) -> None:
        shown = None if place is None else Place(rounded(place.position), rounded(place.length))
        before = self._told.get(child)
        if shown == before or (before is not None and not self._budget.try_take(self._clock())):
            return
        if shown is None:
            del self._told[child]
        else:
            self._told[child] = shown
        self._add(key)

    # --- for people ---------------------------------------------------------------------------------------------------

    def waiting(self) -> dict[str, int]:
        """Jobs that wait, by LocalQueue."""
        return dict(
            Counter(
                f"{key.namespace}/{seen.request['pool']}"
                for key, seen in self._seen.items()
                if not seen.admission.admitted
            )
        )

    def describe(self) -> dict[str, Any]:
        """What Kueue says of the jobs that wait, in the order of their places, and the jobs that it admitted."""
        rows = sorted(((key, seen) for key, seen in self._seen.items() if not seen.admission.admitted), key=self._order)
        return {
            "waiting": [self._row(key, seen) | _reason(seen.admission) for key, seen in rows],
            "holding": [self._row(key, seen) for key, seen in self._seen.items() if seen.admission.admitted],
        }

    def _order(self, entry: tuple[Key, _Seen]) -> tuple[str, str, bool, int, str]:
        key, seen = entry
        place = self._exact.get(seen.child)
        return key.namespace, seen.request["pool"], place is None, place.position if place else 0, key.name

    def _row(self, key: Key, seen: _Seen) -> Object:
        place = self._exact.get(seen.child)
        return {"namespace": key.namespace, "name": key.name, **seen.request} | (place._asdict() if place else {})


def places(items: list[Object]) -> dict[str, Place]:
    """Exact places by the UID of the Job, from the visibility API's items.

    The place is the one in the ClusterQueue, which several LocalQueues may share; the items are of one LocalQueue only,
    so the length is at least the last one's place.
    """
    last = max((item["positionInClusterQueue"] + 1 for item in items), default=0)
    length = max(len(items), last)
    return {
        owner["uid"]: Place(item["positionInClusterQueue"] + 1, length)
        for item in items
        for owner in item["metadata"].get("ownerReferences", [])
    }


def _request(observed: Observed, admission: Admission) -> Object:
    spec, queue = observed.spec, admission.queue or {}
    return {
        "pool": str(queue.get("pool") or ""),
        "gpus": spec.resources.gpus,
        "nodes": spec.resources.nodes,
        "priority": spec.queue.priority,
        "enqueuedAt": queue.get("enqueuedAt"),
    }


def _reason(admission: Admission) -> Object:
    return {"reason": admission.reason, "message": admission.message}
