"""Writes what the schedule says is due."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from trainyard_gateway.intake.report_service import Pending, Schedule
from trainyard_gateway.intake.status_patch import status_patch
from trainyard_gateway.intake.write_scheduler import Outcome
from trainyard_gateway.jobs import Job, JobCache, JobKey
from trainyard_gateway.metrics import Metrics
from trainyard_kube.errors import ApiError, ApiRefusedError

logger = logging.getLogger(__name__)

_IDLE_SECONDS = 0.5
_NEVER = frozenset({400, 403, 404, 413, 422})
"""Answers that the same patch gets every time."""


class StatusApi(Protocol):
    """The part of the API that writes one job."""

    async def patch_status(self, key: JobKey, patch: Mapping[str, Any]) -> dict[str, Any]:
        """Merge-patch the status and return the new object."""


class Writer:
    """Drives the schedule.

    Args:
        api: Where statuses are written.
        jobs: The TrainingJobs; every answer of the API goes back into it.
        schedule: What is to be written when.
        metrics: Counts of writes.
        clock: Monotonic seconds.
    """

    def __init__(
        self, api: StatusApi, jobs: JobCache, schedule: Schedule, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._api, self._jobs, self._schedule = api, jobs, schedule
        self._metrics, self._clock = metrics, clock
        self._writes: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Never return; start every write when it is due."""
        while True:
            self.start_due()
            delay = self._schedule.delay(self._clock())
            await asyncio.sleep(_IDLE_SECONDS if delay is None else min(delay, _IDLE_SECONDS))

    async def drain(self, seconds: float) -> None:
        """Write what still waits, without regard to the interval between two writes of a job, for at most `seconds`."""
        self._schedule.hurry()
        end = self._clock() + seconds
        while self._schedule.busy and self._clock() < end:
            self.start_due()
            await asyncio.sleep(0.01)

    def start_due(self) -> None:
        """Start the writes that may start now."""
        while (due := self._schedule.next(self._clock())) is not None:
            uid, pending = due
            job, patch = self._patch(pending)
            if job is None or not patch:
                self._schedule.drop(uid)
                continue
            self._schedule.start(uid, self._clock())
            task = asyncio.create_task(self._write(uid, job, patch))
            self._writes.add(task)
            task.add_done_callback(self._writes.discard)

    def _patch(self, pending: Pending) -> tuple[Job | None, dict[str, Any]]:
        """The job and what is to be changed in it; no job when it may not be written any more."""
        job = self._jobs.get(pending.job)
        if job is None or job.uid != pending.uid or job.finished or job.current_pod() != pending.pod_uid:
            return None, {}
        return job, status_patch(job.share, pending.share)

    async def _write(self, uid: str, job: Job, patch: Mapping[str, Any]) -> None:
        outcome = Outcome.RETRY
        try:
            outcome = await self._try(job, patch)
        finally:
            self._metrics.writes.labels(outcome.value).inc()
            self._schedule.finish(uid, self._clock(), outcome)

    async def _try(self, job: Job, patch: Mapping[str, Any]) -> Outcome:
        body = {"metadata": {"resourceVersion": job.resource_version}, "status": patch}
        try:
            self._jobs.put(Job.from_object(await self._api.patch_status(job.key, body)))
        except ApiRefusedError as refused:
            return _refused(job, refused)
        except ApiError as error:
            _log(logging.WARNING, job, f"the status was not written, trying again: {error}")
            return Outcome.RETRY
        return Outcome.WRITTEN


def _refused(job: Job, refused: ApiRefusedError) -> Outcome:
    if refused.code == 409:
        return Outcome.RETRY  # somebody wrote meanwhile; the watch brings what, before the next try
    if refused.code not in _NEVER:
        _log(logging.WARNING, job, f"the status was not written, trying again: {refused}")
        return Outcome.RETRY
    if refused.code != 404:
        _log(logging.ERROR, job, f"the status was not written: {refused}")
    return Outcome.DROPPED


def _log(level: int, job: Job, message: str) -> None:
    logger.log(level, message, extra={"namespace": job.key.namespace, "job": job.key.name})
