"""Cache of TrainingJobs, kept current by the informer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from trainyard_crds.constants import TRAINING_JOBS
from trainyard_crds.trainingjob_status import FINAL_CONDITIONS, FINAL_PHASES
from trainyard_kube.cache import Cache
from trainyard_kube.resource import ResourceSpec

OWNED_FIELDS = ("progress", "metrics", "gpus", "memoryEstimate", "invalidRows", "checkpoints", "summary")


class JobKey(NamedTuple):
    """Name of a TrainingJob."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt, as the operator recorded it."""

    number: int
    pod_uid: str
    ended: bool


@dataclass(frozen=True, slots=True)
class Job:
    """The parts of a TrainingJob that the intake reads.

    Attributes:
        key: Namespace and name.
        uid: UID of the object; a recreated object has another.
        resource_version: Resource version of the object.
        finished: Whether the job is Succeeded, Failed or Stopped.
        attempts: Its attempts, oldest first.
        owned_status: The status fields owned by the gateway (JSON).
    """

    key: JobKey
    uid: str
    resource_version: str
    finished: bool
    attempts: tuple[Attempt, ...]
    owned_status: Mapping[str, Any]

    @classmethod
    def from_object(cls, document: Mapping[str, Any]) -> Job:
        """Parse an object of the API."""
        metadata, status = document["metadata"], document.get("status") or {}
        attempts = [
            Attempt(entry["number"], entry["podUID"], "finishedAt" in entry) for entry in status.get("attempts", [])
        ]
        return cls(
            key=JobKey(metadata["namespace"], metadata["name"]),
            uid=metadata["uid"],
            resource_version=metadata["resourceVersion"],
            finished=is_finished(status),
            attempts=tuple(sorted(attempts, key=lambda attempt: attempt.number)),
            owned_status={key: status[key] for key in OWNED_FIELDS if key in status},
        )

    def current_pod(self) -> str | None:
        """Return the UID of the pod that may report: that of the newest attempt, unless it has ended."""
        newest = self.attempts[-1] if self.attempts else None
        return None if newest is None or newest.ended else newest.pod_uid


def is_finished(status: Mapping[str, Any]) -> bool:
    """Return whether a TrainingJob is finished according to its status."""
    conditions = status.get("conditions", [])
    final = any(entry["type"] in FINAL_CONDITIONS and entry["status"] == "True" for entry in conditions)
    return final or status.get("phase") in FINAL_PHASES


class JobCache:
    """TrainingJobs by name.

    Attributes:
        cache: The cache that the informer keeps current.
    """

    def __init__(self) -> None:
        self._jobs: dict[JobKey, Job] = {}
        self._listeners: list[Callable[[str], None]] = []
        self.cache = Cache(Job.from_object, self._index)

    def __len__(self) -> int:
        return len(self._jobs)

    def on_end(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with the UID of each job that finished or was deleted."""
        self._listeners.append(listener)

    def get(self, key: JobKey) -> Job | None:
        """Return the job of a name."""
        return self._jobs.get(key)

    def put(self, document: dict[str, Any]) -> None:
        """Store an object of the API, for example the answer to a patch, unless a newer version is cached."""
        self.cache.put(document)

    def _index(self, uid: str, before: Job | None, after: Job | None) -> None:
        job = after or before
        assert job is not None
        known = self._jobs.get(job.key)
        if after is None:
            if known is None or known.uid != uid:
                return  # the name belongs to another object already
            del self._jobs[job.key]
        else:
            if known is not None and known.uid != uid:
                self._ended(known.uid)
            self._jobs[job.key] = after
        if after is None or after.finished:
            self._ended(uid)

    def _ended(self, uid: str) -> None:
        for listener in self._listeners:
            listener(uid)


JOBS = ResourceSpec[Job](kind="trainingjobs", collection=TRAINING_JOBS, trim=Job.from_object)
