from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.gateway.fakes import KEY, POD_UID, UID, Clock, FakeApi, attempt, job, job_object
from trainyard_gateway.intake.report_service import Pending, Schedule
from trainyard_gateway.intake.status_writer import Writer
from trainyard_gateway.jobs import JobCache
from trainyard_gateway.metrics import Metrics
from trainyard_kube.errors import ApiError, ApiRefusedError, ApiUnreachableError

SHARE: dict[str, Any] = {"progress": {"stage": "Training", "step": 5}}


class Setup:
    def __init__(self, *answers: dict[str, Any] | ApiError, **status: Any) -> None:
        self.api, self.jobs, self.schedule, self.clock = (
            FakeApi(*answers),
            JobCache(),
            Schedule(),
            Clock(),
        )
        self.metrics = Metrics(lambda: 0, lambda: 0, lambda: 0)
        self.writer = Writer(self.api, self.jobs, self.schedule, self.metrics, self.clock)
        self.jobs.put(job(**status))
        self.schedule.offer(UID, Pending(KEY, UID, POD_UID, SHARE), "Training")

    async def turn(self, passed: float = 0.0) -> None:
        self.clock.now += passed
        self.writer.start_due()
        for _ in range(5):
            await asyncio.sleep(0)

    def written(self, outcome: str) -> float:
        return (
            self.metrics.registry.get_sample_value("trainyard_gateway_status_writes_total", {"outcome": outcome}) or 0
        )


async def test_a_due_update_is_patched_with_the_version_it_was_computed_from() -> None:
    setup = Setup(job_object(version=8, **SHARE))
    await setup.turn()
    assert setup.api.patches == [{"metadata": {"resourceVersion": "7"}, "status": SHARE}]
    known = setup.jobs.get(KEY)
    assert known is not None
    assert (known.resource_version, known.share) == ("8", SHARE)
    assert not setup.schedule.busy
    assert setup.written("written") == 1


@pytest.mark.parametrize(
    "status",
    [
        SHARE,
        {"phase": "Succeeded"},
        {"attempts": [attempt(ended=True)]},
        {"attempts": [attempt(), attempt(2, "pod-2")]},
        {"uid": "another object of the name"},
    ],
)
async def test_nothing_is_written_where_nothing_differs_or_the_pod_is_not_the_jobs_any_more(
    status: dict[str, Any],
) -> None:
    setup = Setup(**status)
    await setup.turn()
    assert setup.api.patches == []
    assert not setup.schedule.busy


async def test_a_stale_version_is_tried_again_with_the_one_the_watch_brings() -> None:
    setup = Setup(ApiRefusedError(409, "", "conflict"), job_object(version=12, **SHARE))
    await setup.turn()
    setup.jobs.put(job(version=11))
    await setup.turn(passed=1.0)
    assert [patch["metadata"]["resourceVersion"] for patch in setup.api.patches] == ["7", "11"]
    assert setup.written("written") == 1


async def test_a_job_that_finished_meanwhile_is_left_alone() -> None:
    setup = Setup(ApiRefusedError(409, "", "conflict"))
    await setup.turn()
    setup.jobs.put(job(version=11, phase="Stopped"))
    await setup.turn(passed=60.0)
    assert len(setup.api.patches) == 1
    assert not setup.schedule.busy


@pytest.mark.parametrize(
    "fault", [ApiUnreachableError("timeout"), ApiRefusedError(500, "", "etcd"), ApiRefusedError(429, "", "slow")]
)
async def test_a_fault_of_the_api_server_is_retried(fault: ApiError) -> None:
    setup = Setup(fault, job_object(version=8, **SHARE))
    await setup.turn()
    assert setup.schedule.busy
    await setup.turn(passed=1.0)
    assert not setup.schedule.busy
    assert len(setup.api.patches) == 2


@pytest.mark.parametrize("code", [400, 403, 404, 422])
async def test_what_the_api_server_will_never_take_is_dropped(code: int) -> None:
    setup = Setup(ApiRefusedError(code, "", "no"))
    await setup.turn()
    assert not setup.schedule.busy
    assert setup.written("dropped") == 1


async def test_draining_writes_what_waits_for_its_interval() -> None:
    setup = Setup(job_object(version=8, **SHARE), job_object(version=9))
    await setup.turn()
    setup.clock.now += 1.0
    later = {"progress": {"stage": "Training", "step": 6}}
    setup.schedule.offer(UID, Pending(KEY, UID, POD_UID, later), "Training")
    await setup.turn()
    assert len(setup.api.patches) == 1
    await setup.writer.drain(1.0)
    assert setup.api.patches[1]["status"] == {"progress": {"step": 6}}
