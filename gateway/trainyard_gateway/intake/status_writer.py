"""Sends the status writes that the write scheduler selects."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from prometheus_client import Counter

from trainyard_gateway.intake.job_cache import Job, JobCache, JobKey
from trainyard_gateway.intake.report_service import PendingStatus, StatusScheduler
from trainyard_gateway.intake.status_patch import status_patch
from trainyard_gateway.intake.write_scheduler import Outcome
from trainyard_kube.errors import ApiError, ApiRefusedError

logger = logging.getLogger(__name__)

_IDLE_SECONDS = 0.5
_PERMANENT_CODES = frozenset({400, 403, 404, 413, 422})
"""Responses that a retry of the same patch would get again."""


class StatusApi(Protocol):
    """The API request that writes the status of one job."""

    async def patch_status(self, key: JobKey, patch: Mapping[str, Any]) -> dict[str, Any]:
        """Merge-patch the status and return the new object."""


class StatusWriter:
    """Status writer of the gateway.

    Args:
        api: Sends status patches.
        jobs: The TrainingJobs; updated from each response.
        scheduler: Selects the writes.
        writes: Counts writes by outcome.
        clock: Monotonic seconds.
    """

    def __init__(
        self, api: StatusApi, jobs: JobCache, scheduler: StatusScheduler, writes: Counter, clock: Callable[[], float]
    ) -> None:
        self._api, self._jobs, self._scheduler = api, jobs, scheduler
        self._counter, self._clock = writes, clock
        self._writes: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Start every write when it is due; never return."""
        while True:
            self.start_due()
            delay = self._scheduler.delay(self._clock())
            await asyncio.sleep(_IDLE_SECONDS if delay is None else min(delay, _IDLE_SECONDS))

    async def drain(self, seconds: float) -> None:
        """Write pending updates regardless of the interval of each job, for at most `seconds`."""
        self._scheduler.ignore_intervals()
        end = self._clock() + seconds
        while self._scheduler.busy and self._clock() < end:
            self.start_due()
            await asyncio.sleep(0.01)

    def start_due(self) -> None:
        """Start the writes that are due."""
        while (due := self._scheduler.next(self._clock())) is not None:
            uid, pending = due
            job, patch = self._patch(pending)
            if job is None or not patch:
                self._scheduler.drop(uid)
                continue
            self._scheduler.start(uid, self._clock())
            task = asyncio.create_task(self._write(uid, job, patch))
            self._writes.add(task)
            task.add_done_callback(self._writes.discard)

    def _patch(self, pending: PendingStatus) -> tuple[Job | None, dict[str, Any]]:
        """Return the job and its patch; no job if it must not be written any more."""
        job = self._jobs.get(pending.job)
        if job is None or job.uid != pending.uid or job.finished or job.current_pod() != pending.pod_uid:
            return None, {}
        return job, status_patch(job.owned_status, pending.fields)

    async def _write(self, uid: str, job: Job, patch: Mapping[str, Any]) -> None:
        outcome = Outcome.RETRY
        try:
            outcome = await self._patch_status(job, patch)
        finally:
            self._counter.labels(outcome.value).inc()
            self._scheduler.finish(uid, self._clock(), outcome)

    async def _patch_status(self, job: Job, patch: Mapping[str, Any]) -> Outcome:
        body = {"metadata": {"resourceVersion": job.resource_version}, "status": patch}
        try:
            self._jobs.put(await self._api.patch_status(job.key, body))
        except ApiRefusedError as refused:
            return _outcome(job, refused)
        except ApiError as error:
            _log(logging.WARNING, job, f"the status was not written, retrying: {error}")
            return Outcome.RETRY
        return Outcome.WRITTEN


def _outcome(job: Job, refused: ApiRefusedError) -> Outcome:
    if refused.code == 409:
        return Outcome.RETRY  # another writer was faster; the watch updates the cache before the retry
    if refused.code not in _PERMANENT_CODES:
        _log(logging.WARNING, job, f"the status was not written, retrying: {refused}")
        return Outcome.RETRY
    if refused.code != 404:
        _log(logging.ERROR, job, f"the status was not written: {refused}")
    return Outcome.DROPPED


def _log(level: int, job: Job, message: str) -> None:
    logger.log(level, message, extra={"namespace": job.key.namespace, "job": job.key.name})
