"""Connects the parts of the intake."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from fastapi import FastAPI

from trainyard_gateway.intake.api_requests import ApiServer
from trainyard_gateway.intake.app import create_intake_app
from trainyard_gateway.intake.job_cache import JOBS, JobCache
from trainyard_gateway.intake.report_service import ReportService, StatusScheduler
from trainyard_gateway.intake.status_writer import StatusWriter
from trainyard_gateway.intake.token_review import TokenReviewer
from trainyard_gateway.metrics import Metrics
from trainyard_kube.client import KubeClient
from trainyard_kube.clock import monotonic
from trainyard_kube.informer import Informer
from trainyard_kube.watch import DirectWatch

_SILENCE_LIMIT = 300.0
"""Seconds without a message on the watch after which the liveness probe fails."""


class Intake:
    """The intake of one gateway process.

    Args:
        kube: The API server, as the gateway's service account.

    Attributes:
        metrics: Its metrics.
        watch: Keeps the cache of TrainingJobs current.
        writer: Writes the status.
    """

    def __init__(self, kube: KubeClient) -> None:
        api = ApiServer(kube)
        jobs, scheduler = JobCache(), StatusScheduler()
        self.metrics = Metrics(partial(len, jobs), self._silence, lambda: scheduler.overdue(monotonic()))
        kube.observe_requests(self.metrics.count_api_request)
        self.watch = DirectWatch(kube, Informer(kube, JOBS, jobs.cache, monotonic), monotonic)
        self.writer = StatusWriter(api, jobs, scheduler, self.metrics.writes, monotonic)
        self._service = ReportService(jobs, TokenReviewer(api, monotonic), scheduler)

    def app(self) -> FastAPI:
        """Create the HTTP app that trainer pods post to."""
        return create_intake_app(self._service, self.ready, self.metrics.reports, lambda: datetime.now(UTC))

    def ready(self) -> bool:
        """Return whether the TrainingJobs were listed."""
        return self.watch.synced

    def alive(self) -> bool:
        """Return whether the watch of TrainingJobs works."""
        return self._silence() < _SILENCE_LIMIT

    def _silence(self) -> float:
        return monotonic() - self.watch.last_contact
