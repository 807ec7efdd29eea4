"""Prometheus metrics of the operator."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trainyard_crds.trainingjob_status import Phase

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Metrics that are counted as events happen; `State` has those that are read at a scrape."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.durations = Histogram(
            "trainyard_reconcile_seconds", "Duration of a reconcile.", buckets=_BUCKETS, registry=self.registry
        )
        self.errors = Counter(
            "trainyard_reconcile_errors_total", "Failed reconciles, by error.", ["error"], registry=self.registry
        )
        self.api_requests = Counter(
            "trainyard_api_requests",
            "Requests to the API server except watches, by verb, resource and code (none without an answer).",
            ["verb", "resource", "code"],
            registry=self.registry,
        )

    def count_api_request(self, verb: str, resource: str, code: str) -> None:
        """Count a request to the API server."""
        self.api_requests.labels(verb, resource, code).inc()


class State(Collector):
    """Metrics that are read from the parts of the operator at each scrape.

    Args:
        phases: Number of TrainingJobs by phase.
        event_ages: Seconds since the last watch event, by kind.
        queue_depth: Number of keys in the work queue.
        leading: Whether this process is the leader.
        missed: Changes found by a resync that the watch had not delivered.
        list_age: Seconds since the last complete list.
        waiting: Queued jobs, by pool.
        free: Free units of extended resources on schedulable nodes, by resource.
        held: Whether admission is held.
        faulty: Whether the current settings of the queue are invalid.
    """

    def __init__(
        self,
        *,
        phases: Callable[[], dict[str, int]],
        event_ages: Callable[[], dict[str, float]],
        queue_depth: Callable[[], int],
        leading: Callable[[], bool],
        missed: Callable[[], int],
        list_age: Callable[[], float],
        waiting: Callable[[], dict[str, int]],
        free: Callable[[], dict[str, int]],
        held: Callable[[], bool],
        faulty: Callable[[], bool],
    ) -> None:
        self._phases, self._event_ages, self._queue_depth = phases, event_ages, queue_depth
        self._leading, self._missed, self._list_age = leading, missed, list_age
        self._waiting, self._free = waiting, free
        self._held, self._faulty = held, faulty

    def collect(self) -> Iterable[Metric]:
        """Return the current values."""
        jobs = GaugeMetricFamily("trainyard_jobs", "TrainingJobs by phase.", labels=["phase"])
        counts = self._phases()
        for phase in Phase:
            jobs.add_metric([phase.value], counts.get(phase.value, 0))
        ages = GaugeMetricFamily("trainyard_last_event_age_seconds", "Age of the last watch event.", labels=["kind"])
        for kind, age in self._event_ages().items():
            ages.add_metric([kind], age)
        waiting = GaugeMetricFamily("trainyard_waiting_jobs", "Queued jobs, by pool.", labels=["pool"])
        for pool, count in self._waiting().items():
            waiting.add_metric([pool], count)
        free = GaugeMetricFamily("trainyard_free_gpus", "Free GPUs, by resource.", labels=["resource"])
        for resource, count in self._free().items():
            free.add_metric([resource], count)
        yield from (jobs, ages, waiting, free)
        yield GaugeMetricFamily("trainyard_queue_depth", "TrainingJobs that wait for a worker.", self._queue_depth())
        yield GaugeMetricFamily("trainyard_queue_held", "1 if admission is held.", float(self._held()))
        yield GaugeMetricFamily("trainyard_queue_settings_wrong", "1 if they are invalid.", float(self._faulty()))
        yield GaugeMetricFamily("trainyard_leader", "1 if this process is the leader.", float(self._leading()))
        yield GaugeMetricFamily("trainyard_last_list_age_seconds", "Age of the last complete list.", self._list_age())
        yield CounterMetricFamily("trainyard_watch_missed", "Changes that only a list showed.", self._missed())
