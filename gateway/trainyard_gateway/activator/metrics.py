"""Metrics of the activator; an autoscaler can read the waiting requests."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trainyard_gateway.activator.targets import Target
from trainyard_gateway.activator.waiting import Waiting


class ActivatorMetrics(Collector):
    """Counts held and refused requests.

    Args:
        registry: Registry of the gateway.
        waiting: The waiting requests.
    """

    def __init__(self, registry: CollectorRegistry, waiting: Waiting) -> None:
        self._waiting = waiting
        self.refused = Counter(
            "trainyard_gateway_activator_requests_refused", "Requests refused since too many waited.", registry=registry
        )
        self._seconds = Histogram(
            "trainyard_gateway_activator_hold_seconds",
            "Time that requests waited for a replica.",
            buckets=(1, 5, 15, 30, 60, 120, 300, 600),
            registry=registry,
        )
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Return the number of waiting requests of each ModelDeployment."""
        gauge = GaugeMetricFamily(
            "trainyard_gateway_activator_requests_waiting",
            "Requests that wait for a replica.",
            labels=["namespace", "modeldeployment"],
        )
        for target, count in self._waiting.all().items():
            gauge.add_metric([target.namespace, target.name], count)
        yield gauge

    @contextmanager
    def hold(self, _target: Target) -> Iterator[None]:
        """Measure how long a request waits."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds.observe(time.monotonic() - began)
