"""Settings, time, throttling, health, and the watch's way into the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.timeouts import TIMEOUT
from trainyard_operator.admission.inventory_feed import GpuFeed
from trainyard_operator.health import Heartbeat
from trainyard_operator.kube.store import Key, ResourceKind, Store
from trainyard_operator.kube.watch import Watch
from trainyard_operator.metrics import Metrics, State
from trainyard_operator.quantity import whole_units
from trainyard_operator.queue.inventory import Inventory
from trainyard_operator.queue.quota import Quotas


@pytest.mark.parametrize(("text", "units"), [("500m", 1), ("2", 2), ("1.5Gi", 1610612736), ("3k", 3000)])
def test_quantities(text: str, units: int) -> None:
    assert whole_units(text) == units


def event(kind: str | None, version: int = 1, **metadata: Any) -> dict[str, Any]:
    known = {"name": "tune", "namespace": "team", "uid": "u1", "resourceVersion": str(version)}
    return {"type": kind, "object": {"metadata": known | metadata, "spec": {}}}


def feed() -> GpuFeed:
    kube: Any = None  # never asked
    return GpuFeed(kube, Inventory(), Quotas(), lambda: None)


def a_watch(store: Store, **told: Callable[[Any], None]) -> Watch:
    """One that tells nobody but those that are named."""
    nobody = dict.fromkeys(("add", "echoed", "relisted"), lambda _: None)
    return Watch(store, **(nobody | told), clock=lambda: 5.0, gpus=feed())


def test_what_is_known_already_is_no_news() -> None:
    store, added, echoed = Store(), list[Key](), list[Key]()
    watch = a_watch(store, add=added.append, echoed=echoed.append)
    store.put(ResourceKind.TRAINING_JOBS, event("MODIFIED", 4)["object"])
    for version in (3, 4, 5):
        watch.handle(ResourceKind.TRAINING_JOBS, event("MODIFIED", version))
    assert (echoed, added) == ([Key("team", "tune")] * 2, [Key("team", "tune")])
    watch.handle(ResourceKind.TRAINING_JOBS, event("DELETED", 5))
    assert len(added) == 2


def test_events_reach_store_and_queue_and_a_list_even_an_empty_one_asks_for_a_resync() -> None:
    store, added, relisted = Store(), list[Key](), list[ResourceKind]()
    watch = a_watch(store, add=added.append, relisted=relisted.append)
    watch.handle(ResourceKind.TRAINING_JOBS, event("ADDED"))
    watch.handle(ResourceKind.TRAINING_JOBS, event(None, 2))
    watch.handle(ResourceKind.TRAINING_JOBS, event("DELETED", 3))
    assert relisted == []
    watch.listed("/apis/trainyard.dev/v1alpha1/trainingjobs")
    watch.listed("/apis/trainyard.dev/v1alpha1")
    assert (added, relisted) == ([Key("team", "tune")] * 3, [ResourceKind.TRAINING_JOBS])
    assert (store.all_keys(), watch.last_event) == ([], {ResourceKind.TRAINING_JOBS: 5.0})


def test_an_event_that_cannot_be_read_is_logged_and_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    watch = a_watch(Store())
    watch.handle(ResourceKind.PODS, {"type": "ADDED", "object": {}})
    assert "could not be read" in caplog.text


async def test_a_late_event_loop_is_unhealthy() -> None:
    times = iter([0.0, 9.0])
    heartbeat = Heartbeat(lambda: next(times))
    beating = asyncio.create_task(heartbeat.run())
    with pytest.raises((RuntimeError, StopIteration)):
        await asyncio.wait_for(beating, TIMEOUT)
    assert heartbeat.check() == "the event loop was 8.0 s late"


def test_every_phase_has_a_metric() -> None:
    metrics = Metrics()
    metrics.registry.register(
        State(
            phases=lambda: {"Running": 2},
            event_ages=lambda: {"pods": 1.5},
            queue_depth=lambda: 3,
            leading=lambda: True,
            missed=lambda: 5,
            list_age=lambda: 7.5,
            waiting=lambda: {"nvidia.com/gpu": 4},
            free=lambda: {"nvidia.com/gpu": 6},
            held=lambda: True,
            faulty=lambda: False,
        )
    )
    assert metrics.registry.get_sample_value("trainyard_jobs", {"phase": "Running"}) == 2
    assert metrics.registry.get_sample_value("trainyard_jobs", {"phase": "Failed"}) == 0
    assert metrics.registry.get_sample_value("trainyard_leader") == 1
    assert metrics.registry.get_sample_value("trainyard_queue_held") == 1
    assert metrics.registry.get_sample_value("trainyard_queue_settings_wrong") == 0
    assert metrics.registry.get_sample_value("trainyard_waiting_jobs", {"pool": "nvidia.com/gpu"}) == 4
    assert metrics.registry.get_sample_value("trainyard_free_gpus", {"resource": "nvidia.com/gpu"}) == 6
    assert metrics.registry.get_sample_value("trainyard_watch_missed_total") == 5
    assert metrics.registry.get_sample_value("trainyard_last_list_age_seconds") == 7.5
