from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from trainyard_gateway.api.app import create_api_app
from trainyard_gateway.services.trainingjobs import TrainingJobService
from trainyard_kube.errors import ApiRefusedError, ApiUnreachableError

ROOT = Path(__file__).resolve().parents[4]
LIST = "/apis/v1/namespaces/team/trainingjobs"
DETAIL = f"{LIST}/tune"
TOKEN = {"Authorization": "Bearer secret-token"}


def training_job(name: str = "tune", **status: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "creationTimestamp": f"2026-01-01T00:00:0{len(name)}Z"}, "status": status}


class FakeApi:
    """Returns one response or raises it; counts the requests."""

    def __init__(self) -> None:
        self.response: dict[str, Any] | Exception = training_job()
        self.requests = 0

    async def get(self, path: str, token: str, query: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
        self.requests += 1
        if isinstance(self.response, Exception):
            raise self.response
        return self.response


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def client(api: FakeApi) -> TestClient:
    return TestClient(create_api_app(TrainingJobService(api)), raise_server_exceptions=False)


def test_detail_is_the_object(client: TestClient) -> None:
    response = client.get(DETAIL, headers=TOKEN)
    assert (response.status_code, response.json()) == (200, training_job())


def test_list_has_the_total_in_body_and_header(client: TestClient, api: FakeApi) -> None:
    api.response = {"metadata": {}, "items": [training_job("a", phase="Failed"), training_job("bb", phase="Running")]}
    response = client.get(LIST, headers=TOKEN, params={"limit": 1})
    body = response.json()
    assert (response.status_code, response.headers["X-Total-Count"], body["total"]) == (200, "2", 2)
    assert [item["metadata"]["name"] for item in body["items"]] == ["bb"]
    failed = client.get(LIST, headers=TOKEN, params={"phase": ["Failed", "Stopped"]}).json()
    assert [item["metadata"]["name"] for item in failed["items"]] == ["a"]


@pytest.mark.parametrize("path", [LIST, DETAIL])
@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic secret", "Bearer a\x01b", f"Bearer {'a' * 9000}"]
)
def test_missing_token_is_rejected_without_a_request(
    client: TestClient, api: FakeApi, path: str, header: str | None
) -> None:
    response = client.get(path, headers={} if header is None else {"Authorization": header})
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "send 'Authorization: Bearer'" in response.json()["detail"]
    assert api.requests == 0


ERRORS = {
    "invalid token": (ApiRefusedError(401, "", "Unauthorized"), 401, "it is expired or invalid"),
    "forbidden": (
        ApiRefusedError(403, "Forbidden", 'trainingjobs is forbidden: User "eve"'),
        403,
        'forbidden: User "eve"',
    ),
    "not found": (ApiRefusedError(404, "NotFound", 'trainingjobs "tune" not found'), 404, '"tune" not found'),
    "throttled": (ApiRefusedError(429, "", "too many requests"), 503, "too many requests"),
    "server error": (ApiRefusedError(500, "", "etcd"), 503, "500: etcd"),
    "unreachable": (ApiUnreachableError("GET / failed: timeout"), 503, "GET / failed: timeout"),
    "internal error": (ZeroDivisionError("division"), 500, "its log has the cause"),
}


@pytest.mark.parametrize("path", [LIST, DETAIL])
@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_sentences(client: TestClient, api: FakeApi, path: str, name: str) -> None:
    error, code, sentence = ERRORS[name]
    api.response = error
    response = client.get(path, headers=TOKEN)
    assert response.status_code == code
    assert sentence in response.json()["detail"]
    assert ("Retry-After" in response.headers) == (code == 503)
    assert "division" not in response.text


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (f"{LIST}?limit=0", "limit"),
        (f"{LIST}?limit=501", "limit"),
        (f"{LIST}?offset=-1", "offset"),
        (f"{LIST}?phase=Sleeping", "phase"),
        (f"{LIST}?page=2", "page"),
        ("/apis/v1/namespaces/Team/trainingjobs", "namespace"),
        (f"{LIST}/..%2fsecrets", "name"),
        (f"{LIST}/-tune", "name"),
    ],
)
def test_invalid_parameters_are_named(client: TestClient, api: FakeApi, path: str, field: str) -> None:
    response = client.get(path, headers=TOKEN)
    assert response.status_code in (404, 422)
    assert response.status_code == 404 or field in response.json()["detail"][0]["loc"]
    assert api.requests == 0


def test_unknown_paths_and_methods_are_rejected(client: TestClient) -> None:
    assert client.get("/docs").json() == {"detail": "Not Found"}
    assert client.post(LIST, headers=TOKEN).status_code == 405


def test_openapi_describes_the_endpoints(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/apis/v1/namespaces/{namespace}/trainingjobs",
        "/apis/v1/namespaces/{namespace}/trainingjobs/{name}",
    }
    for path in document["paths"].values():
        operation = path["get"]
        assert operation["security"] == [{"HTTPBearer": []}]
        assert {"200", "401", "403", "422", "503"} <= set(operation["responses"])
    assert "TrainingJobSpec" in document["components"]["schemas"]


def test_every_endpoint_is_documented(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    endpoints = {f"{method.upper()} {path}" for path, operations in paths.items() for method in operations}
    documented = re.findall(r"^\| `([A-Z]+ /\S+)` \|", (ROOT / "docs" / "rest-api.md").read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(endpoints)


def test_tokens_are_not_logged(client: TestClient, api: FakeApi, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    responses: list[dict[str, Any] | Exception] = [training_job(), *(error for error, _, _ in ERRORS.values())]
    for api.response in responses:
        answer = client.get(DETAIL, headers=TOKEN)
        assert "secret-token" not in answer.text
    assert "secret-token" not in caplog.text
    assert "secret-token" not in json.dumps([record.__dict__ for record in caplog.records], default=str)
