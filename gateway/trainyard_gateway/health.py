"""The plain HTTP port: health and metrics."""

from __future__ import annotations

from typing import Protocol

from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


class Health(Protocol):
    """State that the probes report."""

    def ready(self) -> bool:
        """Return whether the TrainingJobs were listed."""

    def alive(self) -> bool:
        """Return whether the watch of TrainingJobs works."""


def create_health_app(health: Health, registry: CollectorRegistry) -> FastAPI:
    """Create the app that the kubelet and Prometheus read.

    Args:
        health: Answers /healthz and /readyz.
        registry: Served at /metrics.
    """
    app = FastAPI(title="Trainyard gateway health", openapi_url=None)

    @app.get("/healthz")
    async def healthz() -> Response:
        return _probe(health.alive(), "the watch of TrainingJobs is silent; the process should be restarted")

    @app.get("/readyz")
    async def readyz() -> Response:
        return _probe(health.ready(), "the TrainingJobs were not listed yet")

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return app


def _probe(good: bool, problem: str) -> Response:
    return PlainTextResponse("ok" if good else problem, status_code=200 if good else 503)
