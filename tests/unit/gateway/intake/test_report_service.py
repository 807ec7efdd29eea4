from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.gateway.fakes import KEY, POD_UID, UID, Clock, FakeReviewer, attempt, caller, job, review
from trainyard_gateway.errors import Refusal
from trainyard_gateway.intake.report_schema import Update
from trainyard_gateway.intake.report_service import Intake, Schedule, authorize
from trainyard_gateway.intake.token_review import Tokens
from trainyard_gateway.jobs import JobCache, JobKey
from trainyard_kube.errors import ApiUnreachableError

FINISHED = {"type": "Finished", "status": "True"}

REFUSED: dict[str, tuple[dict[str, Any], dict[str, str], int, str]] = {
    "another namespace": ({}, {"namespace": "other"}, 403, "ForeignNamespace"),
    "another pod": ({}, {"pod": "web-1"}, 403, "ForeignPod"),
    "another job's pod": ({}, {"pod": "tune-bbbbbbbb-x2k4p"}, 403, "ForeignPod"),
    "an ended attempt": ({"attempts": [attempt(ended=True)]}, {}, 403, "AttemptEnded"),
    "an older attempt": ({"attempts": [attempt(), attempt(2, "pod-2")]}, {}, 403, "AttemptEnded"),
    "an older attempt, listed last": ({"attempts": [attempt(2, "pod-2"), attempt()]}, {}, 403, "AttemptEnded"),
    "a pod not recorded": ({"attempts": []}, {}, 503, "AttemptUnknown"),
    "a new pod not recorded": ({}, {"pod_uid": "pod-2"}, 503, "AttemptUnknown"),
    "a finished job": ({"conditions": [FINISHED]}, {}, 410, "JobFinished"),
    "a stopped job": ({"phase": "Stopped"}, {}, 410, "JobFinished"),
}


@pytest.mark.parametrize(("status", "changes", "code", "reason"), REFUSED.values(), ids=REFUSED)
def test_only_the_current_pod_of_an_unfinished_job_may_report(
    status: dict[str, Any], changes: dict[str, str], code: int, reason: str
) -> None:
    with pytest.raises(Refusal) as caught:
        authorize(job(**status), caller(**changes))
    assert (caught.value.code, caught.value.reason) == (code, reason)
    assert (caught.value.retry_after is not None) == (code == 503)


def test_the_current_pod_may_report() -> None:
    authorize(job(), caller())
    authorize(job(attempts=[attempt(1, "old", ended=True), attempt(2)], phase="Running"), caller())
    authorize(job(conditions=[FINISHED | {"status": "False"}]), caller())


class Setup:
    def __init__(self, answer: Any = None) -> None:
        self.reviewer = FakeReviewer(review() if answer is None else answer)
        self.jobs, self.schedule = JobCache(), Schedule()
        self.intake = Intake(self.jobs, Tokens(self.reviewer, Clock()), self.schedule)
        self.jobs.put(job())


async def test_a_good_token_is_admitted() -> None:
    admitted, who = await Setup().intake.admit(KEY, "token")
    assert admitted.uid == UID
    assert who.pod_uid == POD_UID


async def test_an_empty_token_and_an_unknown_job_are_refused_without_asking_the_api_server() -> None:
    setup = Setup()
    for key, token, reason in ((KEY, "", "TokenMissing"), (JobKey("team", "ghost"), "token", "Unauthorized")):
        with pytest.raises(Refusal) as caught:
            await setup.intake.admit(key, token)
        assert (caught.value.code, caught.value.reason) == (401, reason)
    assert setup.reviewer.calls == 0


async def test_a_job_that_does_not_exist_reads_like_a_wrong_token() -> None:
    answers = []
    for setup, key in ((Setup({"error": "bad"}), KEY), (Setup(), JobKey("team", "ghost"))):
        with pytest.raises(Refusal) as caught:
            await setup.intake.admit(key, "token")
        answers.append((caught.value.code, caught.value.reason, caught.value.message))
    assert answers[0] == answers[1]


async def test_without_the_api_server_the_client_is_to_come_again() -> None:
    with pytest.raises(Refusal) as caught:
        await Setup(ApiUnreachableError("no answer")).intake.admit(KEY, "token")
    assert (caught.value.code, caught.value.retry_after) == (503, 5)


def update(order: float | None, step: int, *, partial: bool = False) -> Update:
    return Update(order, {"stage": "Training", "step": step, "updatedAt": "x"}, {"loss": 1.0}, partial=partial)


def written_step(schedule: Schedule) -> int:
    due = schedule.next(0.0)
    assert due is not None
    return int(due[1].share["progress"]["step"])


def test_only_newer_reports_of_a_pod_are_taken() -> None:
    setup = Setup()
    setup.intake.accept(job(), caller(), update(5, 50))
    setup.intake.accept(job(), caller(), update(5, 51))  # the same report again: nothing changes
    with pytest.raises(Refusal) as caught:
        setup.intake.accept(job(), caller(), update(4, 40))
    assert (caught.value.code, caught.value.reason) == (409, "OutOfDate")
    assert written_step(setup.schedule) == 50
    setup.intake.accept(job(), caller(), update(6, 60))
    assert written_step(setup.schedule) == 60


def test_a_new_pod_counts_from_the_start() -> None:
    setup = Setup()
    setup.intake.accept(job(), caller(), update(5, 50))
    setup.intake.accept(job(), caller(pod_uid="pod-2"), update(0, 40))
    assert written_step(setup.schedule) == 40


def test_the_two_bodies_have_their_own_order() -> None:
    setup = Setup()
    setup.intake.accept(job(), caller(), update(1.7e9, 50, partial=True))
    setup.intake.accept(job(), caller(), update(0, 51))
    assert written_step(setup.schedule) == 51


def test_a_partial_update_goes_on_from_the_last_one_even_when_that_was_not_written() -> None:
    setup = Setup()
    setup.intake.accept(job(), caller(), update(1, 50, partial=True))
    setup.intake.accept(job(), caller(), Update(2, {"stage": "Training", "percent": 100}, {}, partial=True))
    assert written_step(setup.schedule) == 50


ENDS: tuple[Callable[[JobCache], object], ...] = (
    lambda jobs: jobs.put(job(version=9, phase="Failed")),
    lambda jobs: jobs.remove(KEY, UID),
)


def test_a_finished_or_deleted_job_is_forgotten() -> None:
    for end in ENDS:
        setup = Setup()
        setup.intake.accept(job(), caller(), update(5, 50))
        end(setup.jobs)
        assert not setup.schedule.busy
        setup.jobs.put(job(version=12))
        setup.intake.accept(job(), caller(), update(1, 10))
        assert written_step(setup.schedule) == 10


@pytest.mark.parametrize("end", ENDS)
def test_a_job_that_ends_while_a_body_is_on_its_way_is_not_remembered(end: Callable[[JobCache], object]) -> None:
    setup = Setup()
    end(setup.jobs)
    with pytest.raises(Refusal) as caught:
        setup.intake.accept(job(), caller(), update(5, 50))
    assert (caught.value.code, caught.value.reason) == (410, "JobFinished")
    assert not setup.schedule.busy


def test_a_gateway_that_begins_anew_knows_which_stage_is_written() -> None:
    """Else every first report would count as a change, and the real changes would wait among them."""
    setup = Setup()
    second = "bbbbbbbb-0000-0000-0000-000000000000"
    progress = {"stage": "Training", "step": 1}
    setup.jobs.put(job(version=8, progress=progress))
    other = job(uid=second, key=JobKey("team", "other"), progress=progress | {"stage": "Saving"})
    setup.jobs.put(other)
    setup.intake.accept(job(), caller(), update(1, 10))
    setup.intake.accept(other, caller(), update(1, 20))
    assert written_step(setup.schedule) == 20
