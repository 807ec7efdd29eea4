"""Prometheus metrics of the gateway."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

_VERBS = {"GET": "list", "WATCH": "watch", "POST": "create", "PATCH": "patch"}
"""API verb of each HTTP method that the gateway uses."""


class Metrics:
    """Counters and gauges of one process, in a separate registry.

    Args:
        jobs: Returns the number of cached TrainingJobs.
        silence: Returns the seconds since the last message on the watch.
        overdue: Returns the number of jobs whose write waits for the rate or for a retry.
    """

    def __init__(self, jobs: Callable[[], float], silence: Callable[[], float], overdue: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.reports = Counter(
            "trainyard_gateway_reports",
            "Reports received, by body (trainyard, kubeflow) and result (Accepted or the reason of the rejection).",
            ["body", "result"],
            registry=self.registry,
        )
        self.writes = Counter(
            "trainyard_gateway_status_writes",
            "Status patches sent, by outcome (written, retry, dropped).",
            ["outcome"],
            registry=self.registry,
        )
        self.api_requests = Counter(
            "trainyard_gateway_api_requests",
            "Requests to the API server, by verb, resource and code (HTTP status, or none without a response).",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self.connections_refused = Counter(
            "trainyard_gateway_connections_refused",
            "Connections closed at once because too many were open.",
            registry=self.registry,
        )
        cached = Gauge("trainyard_gateway_jobs", "TrainingJobs in the cache of the gateway.", registry=self.registry)
        cached.set_function(jobs)
        age = Gauge(
            "trainyard_gateway_watch_silence_seconds",
            "Seconds since the last message on the watch of TrainingJobs.",
            registry=self.registry,
        )
        age.set_function(silence)
        late = Gauge(
            "trainyard_gateway_writes_overdue",
            "TrainingJobs whose status write is due and waits for the rate or for a retry.",
            registry=self.registry,
        )
        late.set_function(overdue)

    def count_api_request(self, method: str, resource: str, code: str) -> None:
        """Count a request to the API server."""
        self.api_requests.labels(_VERBS.get(method, method), resource, code).inc()
