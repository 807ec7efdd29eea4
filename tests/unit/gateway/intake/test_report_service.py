from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.gateway.fakes import (
    KEY,
    POD_UID,
    UID,
    Clock,
    FakeTokenReviewApi,
    attempt,
    job,
    job_object,
    pod_identity,
    review,
)
from trainyard_gateway.intake.errors import ReportRejectedError
from trainyard_gateway.intake.job_cache import Job, JobCache, JobKey
from trainyard_gateway.intake.report_schema import ReportUpdate
from trainyard_gateway.intake.report_service import ReportService, StatusScheduler, authorize
from trainyard_gateway.intake.token_review import TokenReviewer
from trainyard_kube.errors import ApiUnreachableError

FINISHED = {"type": "Finished", "status": "True"}

REFUSED: dict[str, tuple[dict[str, Any], dict[str, str], int, str]] = {
    "another namespace": ({}, {"namespace": "other"}, 403, "ForeignNamespace"),
    "another pod": ({}, {"name": "web-1"}, 403, "ForeignPod"),
    "another job's pod": ({}, {"name": "tune-bbbbbbbb-x2k4p"}, 403, "ForeignPod"),
    "an ended attempt": ({"attempts": [attempt(ended=True)]}, {}, 403, "AttemptEnded"),
    "an older attempt": ({"attempts": [attempt(), attempt(2, "pod-2")]}, {}, 403, "AttemptEnded"),
    "an older attempt, listed last": ({"attempts": [attempt(2, "pod-2"), attempt()]}, {}, 403, "AttemptEnded"),
    "a pod not recorded": ({"attempts": []}, {}, 503, "AttemptUnknown"),
    "a new pod not recorded": ({}, {"uid": "pod-2"}, 503, "AttemptUnknown"),
    "a finished job": ({"conditions": [FINISHED]}, {}, 410, "JobFinished"),
    "a stopped job": ({"phase": "Stopped"}, {}, 410, "JobFinished"),
}


@pytest.mark.parametrize(("status", "changes", "code", "reason"), REFUSED.values(), ids=REFUSED)
def test_other_pods_and_finished_jobs_are_rejected(
    status: dict[str, Any], changes: dict[str, str], code: int, reason: str
) -> None:
    with pytest.raises(ReportRejectedError) as caught:
        authorize(job(**status), pod_identity(**changes))
    assert (caught.value.code, caught.value.reason) == (code, reason)
    assert (caught.value.retry_after is not None) == (code == 503)


def test_current_pod_may_report() -> None:
    authorize(job(), pod_identity())
    authorize(job(attempts=[attempt(1, "old", ended=True), attempt(2)], phase="Running"), pod_identity())
    authorize(job(conditions=[FINISHED | {"status": "False"}]), pod_identity())


class Setup:
    def __init__(self, response: Any = None) -> None:
        self.reviews = FakeTokenReviewApi(review() if response is None else response)
        self.jobs, self.scheduler = JobCache(), StatusScheduler()
        self.service = ReportService(self.jobs, TokenReviewer(self.reviews, Clock()), self.scheduler)
        self.jobs.put(job_object())


async def test_valid_token_is_authenticated() -> None:
    reported, pod = await Setup().service.authenticate(KEY, "token")
    assert reported.uid == UID
    assert pod.uid == POD_UID


async def test_empty_token_and_unknown_job_are_rejected_without_a_token_review() -> None:
    setup = Setup()
    for key, token, reason in ((KEY, "", "TokenMissing"), (JobKey("team", "ghost"), "token", "Unauthorized")):
        with pytest.raises(ReportRejectedError) as caught:
            await setup.service.authenticate(key, token)
        assert (caught.value.code, caught.value.reason) == (401, reason)
    assert setup.reviews.calls == 0


async def test_unknown_job_and_invalid_token_get_the_same_response() -> None:
    responses = []
    for setup, key in ((Setup({"error": "bad"}), KEY), (Setup(), JobKey("team", "ghost"))):
        with pytest.raises(ReportRejectedError) as caught:
            await setup.service.authenticate(key, "token")
        responses.append((caught.value.code, caught.value.reason, caught.value.message))
    assert responses[0] == responses[1]


async def test_unreachable_api_server_gets_retry_after() -> None:
    with pytest.raises(ReportRejectedError) as caught:
        await Setup(ApiUnreachableError("no answer")).service.authenticate(KEY, "token")
    assert (caught.value.code, caught.value.retry_after) == (503, 5)


def update(order: float | None, step: int, *, partial: bool = False) -> ReportUpdate:
    return ReportUpdate(order, {"stage": "Training", "step": step, "updatedAt": "x"}, {"loss": 1.0}, partial=partial)


def written_step(scheduler: StatusScheduler) -> int:
    due = scheduler.next(0.0)
    assert due is not None
    return int(due[1].fields["progress"]["step"])


def test_only_newer_reports_of_a_pod_are_accepted() -> None:
    setup = Setup()
    setup.service.accept(job(), pod_identity(), update(5, 50))
    setup.service.accept(job(), pod_identity(), update(5, 51))  # a repeated report has no effect
    with pytest.raises(ReportRejectedError) as caught:
        setup.service.accept(job(), pod_identity(), update(4, 40))
    assert (caught.value.code, caught.value.reason) == (409, "OutOfDate")
    assert written_step(setup.scheduler) == 50
    setup.service.accept(job(), pod_identity(), update(6, 60))
    assert written_step(setup.scheduler) == 60


def test_order_restarts_with_a_new_pod() -> None:
    setup = Setup()
    setup.service.accept(job(), pod_identity(), update(5, 50))
    setup.service.accept(job(), pod_identity(uid="pod-2"), update(0, 40))
    assert written_step(setup.scheduler) == 40


def test_the_two_bodies_are_ordered_separately() -> None:
    setup = Setup()
    setup.service.accept(job(), pod_identity(), update(1.7e9, 50, partial=True))
    setup.service.accept(job(), pod_identity(), update(0, 51))
    assert written_step(setup.scheduler) == 51


def test_partial_update_inherits_from_an_unwritten_update() -> None:
    setup = Setup()
    setup.service.accept(job(), pod_identity(), update(1, 50, partial=True))
    setup.service.accept(
        job(), pod_identity(), ReportUpdate(2, {"stage": "Training", "percent": 100}, {}, partial=True)
    )
    assert written_step(setup.scheduler) == 50


ENDS: tuple[Callable[[JobCache], object], ...] = (
    lambda jobs: jobs.put(job_object(version=9, phase="Failed")),
    lambda jobs: jobs.cache.delete(job_object(version=9)),
)


def test_state_of_a_finished_or_deleted_job_is_removed() -> None:
    for end in ENDS:
        setup = Setup()
        setup.service.accept(job(), pod_identity(), update(5, 50))
        end(setup.jobs)
        assert not setup.scheduler.busy
        assert not setup.service._last


@pytest.mark.parametrize("end", ENDS)
def test_job_that_finishes_during_the_request_leaves_no_state(end: Callable[[JobCache], object]) -> None:
    setup = Setup()
    end(setup.jobs)
    with pytest.raises(ReportRejectedError) as caught:
        setup.service.accept(job(), pod_identity(), update(5, 50))
    assert (caught.value.code, caught.value.reason) == (410, "JobFinished")
    assert not setup.scheduler.busy


def test_restarted_gateway_compares_with_the_written_stage() -> None:
    """Otherwise every first report would count as a stage change and delay the real changes."""
    setup = Setup()
    second = "bbbbbbbb-0000-0000-0000-000000000000"
    progress = {"stage": "Training", "step": 1}
    setup.jobs.put(job_object(version=8, progress=progress))
    other = job_object(uid=second, key=JobKey("team", "other"), progress=progress | {"stage": "Saving"})
    setup.jobs.put(other)
    setup.service.accept(job(), pod_identity(), update(1, 10))
    setup.service.accept(Job.from_object(other), pod_identity(), update(1, 20))
    assert written_step(setup.scheduler) == 20
