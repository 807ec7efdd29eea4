"""What Prometheus can read about the gateway."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge


class Metrics:
    """Counters and gauges of one process, in a registry of their own.

    Args:
        jobs: Returns the number of TrainingJobs known.
        silence: Returns the seconds since the watch was last heard of.
    """

    def __init__(self, jobs: Callable[[], float], silence: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        self.reports = Counter(
            "trainyard_gateway_reports",
            "Reports received, by body (trainyard, kubeflow) and result (Accepted or the reason of the refusal).",
            ["body", "result"],
            registry=self.registry,
        )
        self.writes = Counter(
            "trainyard_gateway_status_writes",
            "Status patches sent, by outcome (written, retry, dropped).",
            ["outcome"],
            registry=self.registry,
        )
        self.connections_refused = Counter(
            "trainyard_gateway_connections_refused",
            "Connections closed at once because too many were open.",
            registry=self.registry,
        )
        known = Gauge("trainyard_gateway_jobs", "TrainingJobs the gateway knows.", registry=self.registry)
        known.set_function(jobs)
        age = Gauge(
            "trainyard_gateway_watch_silence_seconds",
            "Seconds since the API server was last heard of on the watch of TrainingJobs.",
            registry=self.registry,
        )
        age.set_function(silence)
