"""The TrainingJobs as the API server last showed them: what one is, and the cache a watch feeds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from trainyard_crds.constants import TRAINING_JOBS
from trainyard_crds.trainingjob_status import FINAL_PHASES
from trainyard_kube.errors import ApiError, GoneError
from trainyard_kube.paths import path

logger = logging.getLogger(__name__)

SHARE_KEYS = ("progress", "metrics", "gpus", "memoryEstimate", "checkpoints", "summary")
_FINAL_CONDITIONS = {"Finished", "Complete", "Failed", "Stopped"}
_WATCH_SECONDS = 290
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 15.0


class JobKey(NamedTuple):
    """Name of a TrainingJob."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One pod of a job, as the operator recorded it."""

    number: int
    pod_uid: str
    ended: bool


@dataclass(frozen=True, slots=True)
class Job:
    """What the gateway needs to know of a TrainingJob.

    Attributes:
        key: Namespace and name.
        uid: UID of the object; a later object of the same name has another.
        resource_version: Version this was read at.
        finished: Whether it came to its end, however it did.
        attempts: Its pods, oldest first.
        share: The parts of the status the gateway writes, as they stand (JSON).
    """

    key: JobKey
    uid: str
    resource_version: str
    finished: bool
    attempts: tuple[Attempt, ...]
    share: Mapping[str, Any]

    @classmethod
    def from_object(cls, document: Mapping[str, Any]) -> Job:
        """Read an object of the API."""
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
            share={key: status[key] for key in SHARE_KEYS if key in status},
        )

    def current_pod(self) -> str | None:
        """UID of the pod that may report now: the newest attempt's, unless that has ended."""
        newest = self.attempts[-1] if self.attempts else None
        return None if newest is None or newest.ended else newest.pod_uid


def is_finished(status: Mapping[str, Any]) -> bool:
    """Whether a TrainingJob's status says that the job came to its end."""
    conditions = status.get("conditions", [])
    final = any(entry["type"] in _FINAL_CONDITIONS and entry["status"] == "True" for entry in conditions)
    return final or status.get("phase") in FINAL_PHASES


class JobCache:
    """All TrainingJobs by name."""

    def __init__(self) -> None:
        self._jobs: dict[JobKey, Job] = {}
        self._listeners: list[Callable[[str], None]] = []

    def __len__(self) -> int:
        return len(self._jobs)

    def on_end(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with a job's uid whenever a job is seen to be gone or finished."""
        self._listeners.append(listener)

    def get(self, key: JobKey) -> Job | None:
        """The job of that name, None when there is none."""
        return self._jobs.get(key)

    def put(self, job: Job) -> None:
        """Take in a job, unless a newer version of the same object is known."""
        known = self._jobs.get(job.key)
        if known is not None and known.uid == job.uid and _version(known) > _version(job):
            return  # the watch shows what a write's answer showed before
        if known is not None and known.uid != job.uid:
            self._ended(known.uid)
        self._jobs[job.key] = job
        if job.finished:
            self._ended(job.uid)

    def remove(self, key: JobKey, uid: str) -> None:
        """Forget a deleted job, unless the name belongs to another object already."""
        known = self._jobs.get(key)
        if known is not None and known.uid == uid:
            del self._jobs[key]
            self._ended(uid)

    def replace(self, jobs: list[Job]) -> None:
        """Take in a complete list: what it lacks is gone."""
        listed = {job.key for job in jobs}
        for key in [key for key in self._jobs if key not in listed]:
            self.remove(key, self._jobs[key].uid)
        for job in jobs:
            self.put(job)

    def _ended(self, uid: str) -> None:
        for listener in self._listeners:
            listener(uid)


def _version(job: Job) -> int:
    return int(job.resource_version)


class JobSource(Protocol):
    """The part of the API client that the reflector uses."""

    async def list_all(self, url: str) -> tuple[list[dict[str, Any]], str]:
        """Read a collection and the resource version of the list."""

    def watch(
        self, url: str, query: Sequence[tuple[str, str]], version: str, seconds: int
    ) -> AsyncGenerator[dict[str, Any]]:
        """Yield watch events after that version, until the server ends the watch."""


class Reflector:
    """Keeps a cache like the API server's state: lists, watches, lists again where the watch lost its place.

    Args:
        source: Where jobs are read.
        cache: What is kept current.
        clock: Monotonic seconds.
    """

    def __init__(self, source: JobSource, cache: JobCache, clock: Callable[[], float]) -> None:
        self._source, self._cache, self._clock = source, cache, clock
        self._version: str | None = None
        self._pause = _FIRST_PAUSE_SECONDS
        self.synced = False
        self.last_contact = clock()

    async def run(self) -> None:
        """Never return; a failure is logged and followed by another try after a growing pause."""
        while True:
            try:
                await self.round()
            except ApiError as error:
                logger.warning("watching TrainingJobs failed, next try in %.1f s: %s", self._pause, error)
                await asyncio.sleep(self._pause)
                self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)

    async def round(self) -> None:
        """One list where it is needed, then one watch to its end.

        Raises:
            ApiError: the API server refused or did not answer.
        """
        if self._version is None:
            objects, version = await self._source.list_all(path(TRAINING_JOBS))
            self._cache.replace([Job.from_object(document) for document in objects])
            self._version, self.synced = version, True
            self._touch()
        try:
            async with aclosing(self._source.watch(path(TRAINING_JOBS), (), self._version, _WATCH_SECONDS)) as events:
                async for event in events:
                    self._take(event)
        except GoneError:
            self._version = None  # the server no longer has the changes since then
        else:
            self._touch()

    def _take(self, event: Mapping[str, Any]) -> None:
        document = event["object"]
        self._version = document["metadata"]["resourceVersion"]
        self._touch()
        if event["type"] in ("ADDED", "MODIFIED"):
            self._cache.put(Job.from_object(document))
        elif event["type"] == "DELETED":
            job = Job.from_object(document)
            self._cache.remove(job.key, job.uid)

    def _touch(self) -> None:
        self.last_contact = self._clock()
        self._pause = _FIRST_PAUSE_SECONDS
