from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.gateway.fakes import KEY, POD_UID, UID, Clock, FakeApi, attempt, job_object
from trainyard_gateway.intake.job_cache import JobCache
from trainyard_gateway.intake.report_service import PendingStatus, StatusScheduler
from trainyard_gateway.intake.status_writer import StatusWriter
from trainyard_gateway.metrics import Metrics
from trainyard_kube.errors import ApiError, ApiRefusedError, ApiUnreachableError

FIELDS: dict[str, Any] = {"progress": {"stage": "Training", "step": 5}}


class Setup:
    def __init__(self, *responses: dict[str, Any] | ApiError, **status: Any) -> None:
        self.api, self.jobs, self.clock = FakeApi(*responses), JobCache(), Clock()
        self.scheduler = StatusScheduler()
        self.metrics = Metrics(lambda: 0, lambda: 0, lambda: 0)
        self.writer = StatusWriter(self.api, self.jobs, self.scheduler, self.metrics.writes, self.clock)
        self.jobs.put(job_object(**status))
        self.scheduler.offer(UID, PendingStatus(KEY, UID, POD_UID, FIELDS), "Training")

    async def turn(self, passed: float = 0.0) -> None:
        self.clock.now += passed
        self.writer.start_due()
        for _ in range(5):
            await asyncio.sleep(0)

    def written(self, outcome: str) -> float:
        return (
            self.metrics.registry.get_sample_value("trainyard_gateway_status_writes_total", {"outcome": outcome}) or 0
        )


async def test_due_update_is_patched_with_the_cached_resource_version() -> None:
    setup = Setup(job_object(version=8, **FIELDS))
    await setup.turn()
    assert setup.api.patches == [{"metadata": {"resourceVersion": "7"}, "status": FIELDS}]
    cached = setup.jobs.get(KEY)
    assert cached is not None
    assert (cached.resource_version, cached.owned_status) == ("8", FIELDS)
    assert not setup.scheduler.busy
    assert setup.written("written") == 1


@pytest.mark.parametrize(
    "status",
    [
        FIELDS,
        {"phase": "Succeeded"},
        {"attempts": [attempt(ended=True)]},
        {"attempts": [attempt(), attempt(2, "pod-2")]},
        {"uid": "recreated"},
    ],
)
async def test_unchanged_or_outdated_update_is_not_written(
    status: dict[str, Any],
) -> None:
    setup = Setup(**status)
    await setup.turn()
    assert setup.api.patches == []
    assert not setup.scheduler.busy


async def test_conflict_is_retried_with_the_version_from_the_watch() -> None:
    setup = Setup(ApiRefusedError(409, "", "conflict"), job_object(version=12, **FIELDS))
    await setup.turn()
    setup.jobs.put(job_object(version=11))
    await setup.turn(passed=1.0)
    assert [patch["metadata"]["resourceVersion"] for patch in setup.api.patches] == ["7", "11"]
    assert setup.written("written") == 1


async def test_conflict_with_a_finished_job_is_not_retried() -> None:
    setup = Setup(ApiRefusedError(409, "", "conflict"))
    await setup.turn()
    setup.jobs.put(job_object(version=11, phase="Stopped"))
    await setup.turn(passed=60.0)
    assert len(setup.api.patches) == 1
    assert not setup.scheduler.busy


@pytest.mark.parametrize(
    "fault", [ApiUnreachableError("timeout"), ApiRefusedError(500, "", "etcd"), ApiRefusedError(429, "", "slow")]
)
async def test_api_server_fault_is_retried(fault: ApiError) -> None:
    setup = Setup(fault, job_object(version=8, **FIELDS))
    await setup.turn()
    assert setup.scheduler.busy
    await setup.turn(passed=1.0)
    assert not setup.scheduler.busy
    assert len(setup.api.patches) == 2


@pytest.mark.parametrize("code", [400, 403, 404, 422])
async def test_permanent_refusal_is_dropped(code: int) -> None:
    setup = Setup(ApiRefusedError(code, "", "no"))
    await setup.turn()
    assert not setup.scheduler.busy
    assert setup.written("dropped") == 1


async def test_drain_ignores_the_interval() -> None:
    setup = Setup(job_object(version=8, **FIELDS), job_object(version=9))
    await setup.turn()
    setup.clock.now += 1.0
    later = {"progress": {"stage": "Training", "step": 6}}
    setup.scheduler.offer(UID, PendingStatus(KEY, UID, POD_UID, later), "Training")
    await setup.turn()
    assert len(setup.api.patches) == 1
    await setup.writer.drain(1.0)
    assert setup.api.patches[1]["status"] == {"progress": {"step": 6}}
