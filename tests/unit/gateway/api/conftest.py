"""A client of the REST API in front of one response of the API server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from fastapi.testclient import TestClient

from trainyard_gateway.api.app import create_api_app
from trainyard_gateway.services.objects import UserObjects


class FakeApi:
    """Returns one response or raises it; counts the requests."""

    def __init__(self) -> None:
        self.response: dict[str, Any] | Exception = {"metadata": {}}
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
    return TestClient(create_api_app(UserObjects(api)), raise_server_exceptions=False)
