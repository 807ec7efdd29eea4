"""What a kind of object supplies so that the queue can admit it. No backend knows a kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from trainyard_kube.resource import Key
from trainyard_operator.admission.decision import Admission
from trainyard_operator.queue.models import Admitted, Basis, Estimate, Request
from trainyard_operator.queue.pool import Pool
from trainyard_operator.queue.position import QueuePosition
from trainyard_operator.queue.reasons import Reason

Object = dict[str, Any]
RunHistory = Callable[[Pool, float], Estimate | None]
"""Expected duration of a run in a pool that has taken so many seconds, from earlier runs; None without any."""


class QueueEntry(NamedTuple):
    """The part of an object in an admission cycle; empty if it neither waits nor holds anything.

    Attributes:
        waiting: Its request while it waits.
        holding: Its admission while it holds resources.
    """

    waiting: Request | None = None
    holding: Admitted | None = None


class Grant(NamedTuple):
    """An admission by this process.

    Attributes:
        nodes: The node planned for each pod.
        admitted_at: When it was granted.
        pending: Whether the child Job has yet to be created or resumed.
    """

    nodes: tuple[str, ...]
    admitted_at: datetime
    pending: bool


class Published(NamedTuple):
    """What the status of a waiting object reports.

    Attributes:
        reason: Why it waits.
        position: Its queue position, if it has one.
        start, basis: Its expected start and what that is based on, if there is an estimate.
    """

    reason: Reason
    position: QueuePosition | None = None
    start: datetime | None = None
    basis: Basis | None = None


class Candidate(Protocol):
    """One object and its children, as last observed."""

    @property
    def key(self) -> Key:
        """Its key in the work queue."""

    @property
    def uid(self) -> str:
        """Its UID."""

    @property
    def created(self) -> tuple[datetime, int]:
        """Creation time (whole seconds) and resource version, which orders objects of the same second."""

    @property
    def enqueued_at(self) -> datetime | None:
        """When a queue first observed it, if that is recorded in the API."""

    @property
    def queue_status(self) -> Object:
        """Its `status.queue`."""

    @property
    def published(self) -> Published | None:
        """What its status reports, if that is complete."""

    @property
    def pool(self) -> Pool:
        """The GPU pool it uses."""

    @property
    def summary(self) -> Object:
        """GPUs, nodes and priority, for the debug endpoint."""

    @property
    def job_uid(self) -> str | None:
        """UID of its child Job; None without one, empty if unknown."""

    @property
    def is_wanted(self) -> bool:
        """Whether it is to run, now or later."""

    @property
    def is_running(self) -> bool:
        """Whether its child Job exists and is not suspended."""

    @property
    def is_final(self) -> bool:
        """Whether its status has a final phase."""

    def completed_run(self, now: datetime) -> float | None:
        """Return how long it ran, in seconds, once its child Job is complete."""

    def entry(
        self, *, enqueued_at: datetime, now: datetime, grant: Grant | None, preempted: bool, history: RunHistory
    ) -> QueueEntry:
        """Return its part in an admission cycle of the builtin queue.

        Args:
            enqueued_at: When the queue first observed it.
            now: The time.
            grant: Its admission by this process, if any.
            preempted: Whether the queue preempted it.
            history: Durations of earlier runs.
        """

    def kueue_admission(
        self,
        *,
        default_queue: str | None,
        problem: str | None,
        workload: Object | None,
        position: QueuePosition | None,
        now: datetime,
    ) -> Admission:
        """Return Kueue's decision about it.

        Args:
            default_queue: LocalQueue of objects that name none.
            problem: Why Kueue cannot be read, a sentence; None while it can.
            workload: The Workload of its child Job.
            position: Its position in Kueue's queue, if known.
            now: The time.
        """


ObserveCandidate = Callable[[Key], Candidate | None]
"""Reads the object of a key and its children from the cache; None if it is gone."""


def observe_by_kind(adapters: Mapping[str, ObserveCandidate]) -> ObserveCandidate:
    """Return a reader for several kinds; objects of other kinds do not pass the queue and have no candidate.

    Args:
        adapters: Readers of the kinds that pass the queue, by the plural name of the kind.
    """

    def observe(key: Key) -> Candidate | None:
        adapter = adapters.get(key.kind)
        return None if adapter is None else adapter(key)

    return observe
