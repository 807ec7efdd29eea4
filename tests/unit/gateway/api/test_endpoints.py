"""What the endpoints of all kinds have in common: tokens, errors, parameters, documentation."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.unit.gateway.api.conftest import FakeApi
from trainyard_kube.errors import ApiRefusedError, ApiUnreachableError

ROOT = Path(__file__).resolve().parents[4]
PLURALS = ("trainingjobs", "modeldeployments")
LISTS = [f"/apis/v1/namespaces/team/{plural}" for plural in PLURALS]
PATHS = [path for collection in LISTS for path in (collection, f"{collection}/tune")]
TOKEN = {"Authorization": "Bearer secret-token"}


@pytest.mark.parametrize("path", PATHS)
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


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_sentences(client: TestClient, api: FakeApi, path: str, name: str) -> None:
    error, code, sentence = ERRORS[name]
    api.response = error
    response = client.get(path, headers=TOKEN)
    assert response.status_code == code
    assert sentence in response.json()["detail"]
    assert ("Retry-After" in response.headers) == (code == 503)
    assert "division" not in response.text


@pytest.mark.parametrize("plural", PLURALS)
@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("team/{}?limit=0", "limit"),
        ("team/{}?limit=501", "limit"),
        ("team/{}?offset=-1", "offset"),
        ("team/{}?page=2", "page"),
        ("Team/{}", "namespace"),
        ("team/{}/..%2fsecrets", "name"),
        ("team/{}/-tune", "name"),
    ],
)
def test_invalid_parameters_are_named(client: TestClient, api: FakeApi, plural: str, path: str, field: str) -> None:
    response = client.get(f"/apis/v1/namespaces/{path.format(plural)}", headers=TOKEN)
    assert response.status_code in (404, 422)
    assert response.status_code == 404 or field in response.json()["detail"][0]["loc"]
    assert api.requests == 0


def test_unknown_paths_and_methods_are_rejected(client: TestClient) -> None:
    assert client.get("/docs").json() == {"detail": "Not Found"}
    assert [client.post(path, headers=TOKEN).status_code for path in LISTS] == [405, 405]


def test_openapi_describes_the_endpoints(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        f"/apis/v1/namespaces/{{namespace}}/{plural}{rest}" for plural in PLURALS for rest in ("", "/{name}")
    }
    for path in document["paths"].values():
        operation = path["get"]
        assert operation["security"] == [{"HTTPBearer": []}]
        assert {"200", "401", "403", "422", "503"} <= set(operation["responses"])
    assert {"TrainingJobSpec", "ModelDeploymentSpec"} <= document["components"]["schemas"].keys()


def test_every_endpoint_is_documented(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    endpoints = {f"{method.upper()} {path}" for path, operations in paths.items() for method in operations}
    documented = re.findall(r"^\| `([A-Z]+ /\S+)` \|", (ROOT / "docs" / "rest-api.md").read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(endpoints)


def test_tokens_are_not_logged(client: TestClient, api: FakeApi, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    responses: list[dict[str, Any] | Exception] = [{"metadata": {}}, *(error for error, _, _ in ERRORS.values())]
    for api.response in responses:
        answers = [client.get(path, headers=TOKEN) for path in PATHS]
        assert all("secret-token" not in answer.text for answer in answers)
    assert "secret-token" not in caplog.text
    assert "secret-token" not in json.dumps([record.__dict__ for record in caplog.records], default=str)
