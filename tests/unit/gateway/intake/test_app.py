from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.unit.gateway.fakes import KEY, Clock, FakeTokenReviewApi, job_object, review
from trainyard_crds.constants import kubeflow_path, progress_path
from trainyard_gateway.health import create_health_app
from trainyard_gateway.intake.app import create_intake_app
from trainyard_gateway.intake.job_cache import JobCache
from trainyard_gateway.intake.report_service import ReportService, StatusScheduler
from trainyard_gateway.intake.request import bearer_token
from trainyard_gateway.intake.token_review import TokenReviewer
from trainyard_gateway.metrics import Metrics

NOW = datetime(2026, 6, 1, tzinfo=UTC)
PATH, KUBEFLOW = progress_path(*KEY), kubeflow_path(*KEY)
REPORT = {"sequence": 1, "ownerEpoch": 1, "progress": {"stage": "Training", "step": 5}}
TOKEN = {"Authorization": "Bearer good"}


class Setup:
    def __init__(self) -> None:
        self.is_ready = self.is_alive = True
        self.jobs, self.scheduler, self.reviews = JobCache(), StatusScheduler(), FakeTokenReviewApi(review())
        self.metrics = Metrics(lambda: len(self.jobs), lambda: 3.0, lambda: 0.0)
        service = ReportService(self.jobs, TokenReviewer(self.reviews, Clock()), self.scheduler)
        self.jobs.put(job_object())
        app = create_intake_app(service, self.ready, self.metrics.reports, lambda: NOW)
        self.client = TestClient(app, raise_server_exceptions=False)
        self.health = TestClient(create_health_app(self, self.metrics.registry))

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


def assert_rejected(response: Any, code: int, reason: str) -> dict[str, Any]:
    body: dict[str, Any] = response.json()
    assert response.status_code == code, body
    assert (body["kind"], body["status"], body["code"], body["reason"]) == ("Status", "Failure", code, reason)
    assert body["message"]
    return body


def test_accepted_report_schedules_a_write(setup: Setup) -> None:
    response = setup.client.post(PATH, json=REPORT, headers=TOKEN)
    assert (response.status_code, response.json()["status"]) == (200, "Success")
    assert setup.scheduler.busy
    assert setup.count("trainyard", "Accepted") == 1


def test_kubeflow_report_is_accepted(setup: Setup) -> None:
    body = {"trainerStatus": {"progressPercentage": 100, "metrics": [{"name": "loss", "value": "0.5"}]}}
    assert setup.client.post(KUBEFLOW, json=body, headers=TOKEN).status_code == 200
    due = setup.scheduler.next(0.0)
    assert due is not None
    assert due[1].fields["progress"]["stage"] == "Training"
    assert setup.count("kubeflow", "Accepted") == 1


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic good", "good"])
def test_missing_token_is_rejected_without_a_token_review(setup: Setup, header: str) -> None:
    response = setup.client.post(PATH, json=REPORT, headers={"Authorization": header})
    assert_rejected(response, 401, "TokenMissing")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert setup.reviews.calls == 0


def test_invalid_token_is_rejected_and_nothing_is_written(setup: Setup) -> None:
    setup.reviews.response = {"error": "invalid bearer token"}
    body = assert_rejected(setup.client.post(PATH, json=REPORT, headers=TOKEN), 401, "Unauthorized")
    assert "good" not in body["message"]
    assert not setup.scheduler.busy
    assert setup.count("trainyard", "Unauthorized") == 1


def test_reports_before_the_first_list_get_retry_after(setup: Setup) -> None:
    setup.is_ready = False
    response = setup.client.post(PATH, json=REPORT, headers=TOKEN)
    assert assert_rejected(response, 503, "NotReady")["details"] == {"retryAfterSeconds": 2}
    assert response.headers["Retry-After"] == "2"


def chunks(total: int) -> Iterator[bytes]:
    for _ in range(total // 1024):
        yield b" " * 1024


@pytest.mark.parametrize("body", [b" " * 10_000_000, chunks(200_000)], ids=["declared", "chunked"])
def test_oversized_body_is_rejected(setup: Setup, body: Any) -> None:
    assert_rejected(setup.client.post(PATH, content=body, headers=TOKEN), 413, "BodyTooLarge")
    assert not setup.scheduler.busy


@pytest.mark.parametrize(
    ("body", "code", "reason"),
    [
        (b"", 400, "EmptyBody"),
        (b"{", 400, "InvalidJson"),
        (json.dumps(REPORT).replace("5", "NaN").encode(), 400, "InvalidJson"),
        (json.dumps(REPORT | {"sequence": "1"}).encode(), 422, "InvalidBody"),
    ],
)
def test_invalid_body_is_rejected(setup: Setup, body: bytes, code: int, reason: str) -> None:
    assert_rejected(setup.client.post(PATH, content=body, headers=TOKEN), code, reason)
    assert not setup.scheduler.busy


def test_older_report_is_rejected_and_repeated_report_is_accepted(setup: Setup) -> None:
    for sequence, code in ((2, 200), (2, 200), (1, 409)):
        assert setup.client.post(PATH, json=REPORT | {"sequence": sequence}, headers=TOKEN).status_code == code


def test_unknown_paths_and_methods_return_a_kubernetes_status(setup: Setup) -> None:
    assert_rejected(setup.client.get("/"), 404, "NotFound")
    assert_rejected(setup.client.get("/openapi.json"), 404, "NotFound")
    response = setup.client.get(PATH)
    assert_rejected(response, 405, "MethodNotAllowed")
    assert response.headers["Allow"] == "POST"


def test_internal_error_response_has_no_details(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReportService, "accept", lambda *_: 1 / 0)
    body = assert_rejected(setup.client.post(PATH, json=REPORT, headers=TOKEN), 500, "InternalError")
    assert "division" not in json.dumps(body)


def test_failed_probes_name_the_problem(setup: Setup) -> None:
    assert setup.health.get("/healthz").text == "ok"
    assert setup.health.get("/readyz").status_code == 200
    setup.is_alive = setup.is_ready = False
    assert (setup.health.get("/healthz").status_code, setup.health.get("/readyz").status_code) == (503, 503)
    assert "silent" in setup.health.get("/healthz").text


def test_metrics_are_served(setup: Setup) -> None:
    setup.client.post(PATH, json=REPORT, headers=TOKEN)
    text = setup.health.get("/metrics").text
    assert "trainyard_gateway_jobs 1.0" in text
    assert "trainyard_gateway_watch_silence_seconds 3.0" in text
    assert 'trainyard_gateway_reports_total{body="trainyard",result="Accepted"} 1.0' in text


@pytest.mark.parametrize(
    ("header", "token"), [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", ""), ("", ""), ("Bearer", "")]
)
def test_bearer_token_is_parsed(header: str, token: str) -> None:
    assert bearer_token(header) == token
