"""Metrics of the proxy, and those of the engine under public names."""

from __future__ import annotations

import re

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from trainyard_serving.proxy.names import Names

_INTERNAL = re.compile(r"([A-Za-z0-9][-\w.]*)@[0-9a-f]{12}")
_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counts requests.

    Args:
        names: Requests in flight.
    """

    def __init__(self, names: Names) -> None:
        self.registry = CollectorRegistry()
        labels = ["model", "code"]
        self._requests = Counter("trainyard_serving_requests", "Requests.", labels, registry=self.registry)
        self._seconds = Histogram(
            "trainyard_serving_request_seconds",
            "Duration of requests.",
            ["model"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        flying = Gauge("trainyard_serving_requests_in_flight", "Requests being answered.", registry=self.registry)
        flying.set_function(lambda: names.in_flight)

    def count(self, model: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(model, str(status)).inc()
        self._seconds.labels(model).observe(seconds)

    def text(self, engine: str) -> str:
        """Return all metrics as text, with those of the engine."""
        return generate_latest(self.registry).decode() + public(engine)


def public(text: str) -> str:
    """Return the engine's metrics under public names.

    Series that differ in the version of an adapter only become one, with the largest value: Prometheus refuses a series
    that occurs twice.
    """
    lines: dict[str, str] = {}
    for line in text.splitlines():
        series, _, value = _INTERNAL.sub(r"\1", line).rpartition(" ")
        if line.startswith("#") or not series:
            lines[line] = line
        elif series not in lines or _number(value) > _number(lines[series].rpartition(" ")[2]):
            lines[series] = f"{series} {value}"
    return "".join(f"{line}\n" for line in lines.values())


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("-inf")
