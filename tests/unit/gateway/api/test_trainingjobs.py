from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient

from tests.unit.gateway.api.conftest import FakeApi

LIST = "/apis/v1/namespaces/team/trainingjobs"
TOKEN = {"Authorization": "Bearer secret-token"}


def training_job(name: str = "tune", **status: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "creationTimestamp": f"2026-01-01T00:00:0{len(name)}Z"}, "status": status}


def test_detail_is_the_object(client: TestClient, api: FakeApi) -> None:
    api.response = training_job()
    response = client.get(f"{LIST}/tune", headers=TOKEN)
    assert (response.status_code, response.json()) == (200, training_job())


def test_list_has_the_total_in_body_and_header(client: TestClient, api: FakeApi) -> None:
    api.response = {"metadata": {}, "items": [training_job("a", phase="Failed"), training_job("bb", phase="Running")]}
    response = client.get(LIST, headers=TOKEN, params={"limit": 1})
    body = response.json()
    assert (response.status_code, response.headers["X-Total-Count"], body["total"]) == (200, "2", 2)
    assert [item["metadata"]["name"] for item in body["items"]] == ["bb"]
    failed = client.get(LIST, headers=TOKEN, params={"phase": ["Failed", "Stopped"]}).json()
    assert [item["metadata"]["name"] for item in failed["items"]] == ["a"]


def test_unknown_phase_is_named(client: TestClient, api: FakeApi) -> None:
    response = client.get(f"{LIST}?phase=Sleeping", headers=TOKEN)
    assert response.status_code == 422
    assert "phase" in response.json()["detail"][0]["loc"]
    assert api.requests == 0
