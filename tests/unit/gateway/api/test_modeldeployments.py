from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.unit.gateway.api.conftest import FakeApi

LIST = "/apis/v1/namespaces/team/modeldeployments"
TOKEN = {"Authorization": "Bearer secret-token"}


def model_deployment(name: str = "chat", ready: str = "True") -> dict[str, Any]:
    metadata = {"name": name, "creationTimestamp": f"2026-01-01T00:00:0{len(name)}Z"}
    return {"metadata": metadata, "status": {"conditions": [{"type": "Ready", "status": ready}]}}


def test_detail_is_the_object(client: TestClient, api: FakeApi) -> None:
    api.response = model_deployment()
    response = client.get(f"{LIST}/chat", headers=TOKEN)
    assert (response.status_code, response.json()) == (200, model_deployment())


@pytest.mark.parametrize(("query", "expected"), [("", ["bb", "a"]), ("?ready=true", ["bb"]), ("?ready=false", ["a"])])
def test_list_selects_by_readiness(client: TestClient, api: FakeApi, query: str, expected: list[str]) -> None:
    api.response = {"metadata": {}, "items": [model_deployment("a", "False"), model_deployment("bb")]}
    response = client.get(f"{LIST}{query}", headers=TOKEN)
    body = response.json()
    assert [item["metadata"]["name"] for item in body["items"]] == expected
    assert (response.headers["X-Total-Count"], body["total"]) == (str(len(expected)), len(expected))


def test_other_readiness_is_named(client: TestClient, api: FakeApi) -> None:
    response = client.get(f"{LIST}?ready=soon", headers=TOKEN)
    assert response.status_code == 422
    assert "ready" in response.json()["detail"][0]["loc"]
    assert api.requests == 0
