"""Paging and chunks are those of every kind, see test_trainingjobs.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from trainyard_gateway.services.modeldeployments import ModelDeploymentService
from trainyard_gateway.services.objects import UserObjects

COLLECTION = "/apis/trainyard.dev/v1alpha1/namespaces/team/modeldeployments"


def model_deployment(name: str, ready: str | None = "True") -> dict[str, Any]:
    metadata = {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [{}]}
    conditions = [{"type": "Reconciling", "status": "True"}, {"type": "Ready", "status": ready}]
    return {"metadata": metadata, "spec": {}} | ({} if ready is None else {"status": {"conditions": conditions}})


class FakeApi:
    """Serves a list or one object; records the requests."""

    def __init__(self, *items: dict[str, Any]) -> None:
        self.items = list(items)
        self.requests: list[tuple[str, str]] = []

    async def get(self, path: str, token: str, query: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
        self.requests.append((path, token))
        if path == COLLECTION:
            return {"metadata": {}, "items": self.items}
        return model_deployment(path.rpartition("/")[2])


@pytest.mark.parametrize(("ready", "expected"), [(None, ["d", "c", "b", "a"]), (True, ["a"]), (False, ["d", "c", "b"])])
async def test_list_selects_by_the_condition_ready(ready: bool | None, expected: list[str]) -> None:
    states = {"a": "True", "b": "False", "c": "Unknown", "d": None}
    api = FakeApi(*(model_deployment(name, state) for name, state in states.items()))
    reader = ModelDeploymentService(UserObjects(api))
    page = await reader.list_page("secret", "team", ready=ready, limit=50, offset=0)
    assert [item["metadata"]["name"] for item in page.items] == expected
    assert page.total == len(expected)
    assert {item["kind"] for item in page.items} == {"ModelDeployment"}
    assert set(api.requests) == {(COLLECTION, "secret")}


async def test_get_reads_one_object_with_the_callers_token() -> None:
    api = FakeApi()
    document = await ModelDeploymentService(UserObjects(api)).get("secret", "team", "support_chat")
    assert document["metadata"]["name"] == "support-chat"
    assert "managedFields" not in document["metadata"]
    assert api.requests == [(f"{COLLECTION}/support-chat", "secret")]
