"""Health checks and metrics of the operator."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.timeouts import TIMEOUT
from trainyard_operator.health import Heartbeat
from trainyard_operator.metrics import Metrics, State


async def test_lag_of_the_event_loop_is_unhealthy() -> None:
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
