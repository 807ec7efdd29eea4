"""Memory of the intake: only the newest report of each job is kept."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.unit.gateway.fakes import Clock, FakeTokenReviewApi, attempt, job, job_object
from trainyard_crds.constants import child_name
from trainyard_crds.report import CheckpointStatus, Progress, Report, Stage
from trainyard_gateway.intake.job_cache import Job, JobCache, JobKey
from trainyard_gateway.intake.report_schema import parse_report
from trainyard_gateway.intake.report_service import ReportService, StatusScheduler
from trainyard_gateway.intake.token_review import PodIdentity, TokenReviewer

JOBS = 50
NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def make_job(number: int) -> tuple[Job, PodIdentity]:
    key, uid, pod_uid = JobKey("team", f"job-{number}"), f"{number:08}-0000", f"pod-{number}"
    pod = PodIdentity(key.namespace, f"{child_name(key.name, uid)}-x2k4p", pod_uid)
    return job(key=key, uid=uid, attempts=[attempt(pod_uid=pod_uid)]), pod


def report(sequence: int) -> bytes:
    checkpoint = CheckpointStatus(
        name="step-10-e1", step=10, bytes=5, digest=f"sha256:{sequence:064}", created_at="2026-06-01T00:00:00Z"
    )
    return (
        Report(
            sequence=sequence,
            owner_epoch=1,
            progress=Progress(stage=Stage.TRAINING, step=1000 + sequence, total_steps=10_000),
            metrics={f"metric{number}": sequence / 7 for number in range(20)},
            checkpoints=[checkpoint.model_copy(update={"name": f"step-{number}"}) for number in range(20)],
        )
        .model_dump_json(by_alias=True, exclude_none=True)
        .encode()
    )


def test_memory_does_not_grow_with_the_number_of_reports() -> None:
    cache, scheduler = JobCache(), StatusScheduler()
    service = ReportService(cache, TokenReviewer(FakeTokenReviewApi({}), Clock()), scheduler)
    jobs = [make_job(number) for number in range(JOBS)]
    for made, pod in jobs:
        cache.put(job_object(key=made.key, uid=made.uid, attempts=[attempt(pod_uid=pod.uid)]))

    def send(sequences: range) -> int:
        for sequence in sequences:
            body = report(sequence)
            for made, pod in jobs:
                service.accept(made, pod, parse_report(body, NOW))
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    first, last = send(range(2)), send(range(2, 8))
    per_report = (last - first) / (6 * JOBS)
    assert per_report < 1_000, f"{per_report:.0f} bytes per report"  # a retained report takes some 10 KiB
    assert scheduler.overdue(0.0) == JOBS
