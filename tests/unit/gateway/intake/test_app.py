from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.unit.gateway.fakes import KEY, Clock, FakeReviewer, job, review
from trainyard_crds.constants import kubeflow_path, progress_path
from trainyard_gateway.intake.app import bearer_token, health_app, intake_app
from trainyard_gateway.intake.report_service import Intake, Schedule
from trainyard_gateway.intake.token_review import Tokens
from trainyard_gateway.jobs import JobCache
from trainyard_gateway.metrics import Metrics

NOW = datetime(2026, 6, 1, tzinfo=UTC)
PATH, KUBEFLOW = progress_path(*KEY), kubeflow_path(*KEY)
REPORT = {"sequence": 1, "ownerEpoch": 1, "progress": {"stage": "Training", "step": 5}}
TOKEN = {"Authorization": "Bearer good"}


class Setup:
    def __init__(self) -> None:
        self.is_ready = self.is_alive = True
        self.jobs, self.schedule, self.reviewer = JobCache(), Schedule(), FakeReviewer(review())
        self.metrics = Metrics(lambda: len(self.jobs), lambda: 3.0, lambda: 0.0)
        intake = Intake(self.jobs, Tokens(self.reviewer, Clock()), self.schedule)
        self.jobs.put(job())
        app = intake_app(intake, self, self.metrics, lambda: NOW)
        self.client = TestClient(app, raise_server_exceptions=False)
        self.health = TestClient(health_app(self, self.metrics.registry))

    def ready(self) -> bool:
        return self.is_ready

    def alive(self) -> bool:
        return self.is_alive

    def count(self, body: str, result: str) -> float | None:
        labels = {"body": body, "result": result}
        return self.metrics.registry.get_sample_value("trainyard_gateway_reports_total", labels)


@pytest.fixture
def setup() -> Setup:
    return Setup()


def refused(answer: Any, code: int, reason: str) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert answer.status_code == code, body
    assert (body["kind"], body["status"], body["code"], body["reason"]) == ("Status", "Failure", code, reason)
    assert body["message"]
    return body


def test_a_report_is_accepted_and_waits_to_be_written(setup: Setup) -> None:
    answer = setup.client.post(PATH, json=REPORT, headers=TOKEN)
    assert (answer.status_code, answer.json()["status"]) == (200, "Success")
    assert setup.schedule.busy
    assert setup.count("trainyard", "Accepted") == 1


def test_a_kubeflow_body_is_accepted_with_200(setup: Setup) -> None:
    body = {"trainerStatus": {"progressPercentage": 100, "metrics": [{"name": "loss", "value": "0.5"}]}}
    assert setup.client.post(KUBEFLOW, json=body, headers=TOKEN).status_code == 200
    due = setup.schedule.next(0.0)
    assert due is not None
    assert due[1].share["progress"]["stage"] == "Training"
    assert setup.count("kubeflow", "Accepted") == 1


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic good", "good"])
def test_without_a_bearer_token_nothing_is_asked(setup: Setup, header: str) -> None:
    answer = setup.client.post(PATH, json=REPORT, headers={"Authorization": header})
    refused(answer, 401, "TokenMissing")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert setup.reviewer.calls == 0


def test_a_wrong_token_is_refused_and_nothing_is_written(setup: Setup) -> None:
    setup.reviewer.answer = {"error": "invalid bearer token"}
    body = refused(setup.client.post(PATH, json=REPORT, headers=TOKEN), 401, "Unauthorized")
    assert "good" not in body["message"]
    assert not setup.schedule.busy
    assert setup.count("trainyard", "Unauthorized") == 1


def test_while_the_gateway_starts_the_client_is_to_come_again(setup: Setup) -> None:
    setup.is_ready = False
    answer = setup.client.post(PATH, json=REPORT, headers=TOKEN)
    assert refused(answer, 503, "NotReady")["details"] == {"retryAfterSeconds": 2}
    assert answer.headers["Retry-After"] == "2"


def chunks(total: int) -> Iterator[bytes]:
    for _ in range(total // 1024):
        yield b" " * 1024


@pytest.mark.parametrize("body", [b" " * 10_000_000, chunks(200_000)], ids=["declared", "chunked"])
def test_a_large_body_is_refused(setup: Setup, body: Any) -> None:
    refused(setup.client.post(PATH, content=body, headers=TOKEN), 413, "BodyTooLarge")
    assert not setup.schedule.busy


@pytest.mark.parametrize(
    ("body", "code", "reason"),
    [
        (b"", 400, "EmptyBody"),
        (b"{", 400, "InvalidJson"),
        (json.dumps(REPORT).replace("5", "NaN").encode(), 400, "InvalidJson"),
        (json.dumps(REPORT | {"sequence": "1"}).encode(), 422, "InvalidBody"),
    ],
)
def test_a_bad_body_is_refused(setup: Setup, body: bytes, code: int, reason: str) -> None:
    refused(setup.client.post(PATH, content=body, headers=TOKEN), code, reason)
    assert not setup.schedule.busy


def test_an_older_report_is_refused_and_the_same_again_is_not(setup: Setup) -> None:
    for sequence, code in ((2, 200), (2, 200), (1, 409)):
        assert setup.client.post(PATH, json=REPORT | {"sequence": sequence}, headers=TOKEN).status_code == code


def test_other_paths_and_methods_answer_like_the_api_server(setup: Setup) -> None:
    refused(setup.client.get("/"), 404, "NotFound")
    refused(setup.client.get("/openapi.json"), 404, "NotFound")
    answer = setup.client.get(PATH)
    refused(answer, 405, "MethodNotAllowed")
    assert answer.headers["Allow"] == "POST"


def test_a_fault_of_ours_shows_no_traceback(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Intake, "accept", lambda *_: 1 / 0)
    body = refused(setup.client.post(PATH, json=REPORT, headers=TOKEN), 500, "InternalError")
    assert "division" not in json.dumps(body)


def test_health_says_what_is_wrong(setup: Setup) -> None:
    assert setup.health.get("/healthz").text == "ok"
    assert setup.health.get("/readyz").status_code == 200
    setup.is_alive = setup.is_ready = False
    assert (setup.health.get("/healthz").status_code, setup.health.get("/readyz").status_code) == (503, 503)
    assert "silent" in setup.health.get("/healthz").text


def test_metrics_are_shown(setup: Setup) -> None:
    setup.client.post(PATH, json=REPORT, headers=TOKEN)
    text = setup.health.get("/metrics").text
    assert "trainyard_gateway_jobs 1.0" in text
    assert "trainyard_gateway_watch_silence_seconds 3.0" in text
    assert 'trainyard_gateway_reports_total{body="trainyard",result="Accepted"} 1.0' in text


@pytest.mark.parametrize(
    ("header", "token"), [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", ""), ("", ""), ("Bearer", "")]
)
def test_the_token_is_taken_from_the_header(header: str, token: str) -> None:
    assert bearer_token(header) == token
