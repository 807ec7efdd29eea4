"""Prometheus metrics of the operator."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trainyard_crds.trainingjob_status import Phase

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Counted as it happens; see `State` for what is read when asked."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.durations = Histogram(
            "trainyard_reconcile_seconds", "Time of one reconcile.", buckets=_BUCKETS, registry=self.registry
        )
        self.errors = Counter(
            "trainyard_reconcile_errors_total", "Reconciles that failed, by error.", ["error"], registry=self.registry
        )
        self.api_requests = Counter(
            "trainyard_api_requests",
            "Requests to the API server beside the watches, by verb, resource and code (none where no answer came).",
            ["verb", "resource", "code"],
            registry=self.registry,
        )

    def count_api_request(self, verb: str, resource: str, code: str) -> None:
        """A request to the API server was answered, or was not."""
        self.api_requests.labels(verb, resource, code).inc()


class State(Collector):
    """What is read from the running parts at the moment of a scrape.

    Args:
        phases: Number of TrainingJobs by phase.
        event_ages: Seconds since the last watch event, by kind.
        queue_depth: Keys that wait.
        leading: Whether this process leads.
        missed: Changes that only a resync showed.
        list_age: Seconds since everything was listed last.
        waiting: Jobs that wait for GPUs, by pool.
        free: Units of extended resources that no pod holds on open nodes, by resource.
        held: Whether the queue lets nothing in.
        faulty: Whether the queue's settings were changed into something that is not understood.
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
        """The present values."""
        jobs = GaugeMetricFamily("trainyard_jobs", "TrainingJobs by phase.", labels=["phase"])
        counts = self._phases()
        for phase in Phase:
            jobs.add_metric([phase.value], counts.get(phase.value, 0))
        ages = GaugeMetricFamily("trainyard_last_event_age_seconds", "Since the last watch event.", labels=["kind"])
        for kind, age in self._event_ages().items():
            ages.add_metric([kind], age)
        waiting = GaugeMetricFamily("trainyard_waiting_jobs", "Jobs that wait for GPUs.", labels=["pool"])
        for pool, count in self._waiting().items():
            waiting.add_metric([pool], count)
        free = GaugeMetricFamily("trainyard_free_gpus", "GPUs that no pod holds.", labels=["resource"])
        for resource, count in self._free().items():
            free.add_metric([resource], count)
        yield from (jobs, ages, waiting, free)
        yield GaugeMetricFamily("trainyard_queue_depth", "TrainingJobs that wait for a worker.", self._queue_depth())
        yield GaugeMetricFamily("trainyard_queue_held", "1 where the queue lets nothing in.", float(self._held()))
        yield GaugeMetricFamily("trainyard_queue_settings_wrong", "1 where they have a fault.", float(self._faulty()))
        yield GaugeMetricFamily("trainyard_leader", "1 where this process leads.", float(self._leading()))
        yield GaugeMetricFamily("trainyard_last_list_age_seconds", "Since everything was listed.", self._list_age())
        yield CounterMetricFamily("trainyard_watch_missed", "Changes that only a list showed.", self._missed())
