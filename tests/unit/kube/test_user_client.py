from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from trainyard_kube.errors import ApiRefusedError, ApiUnreachableError, ConfigurationError
from trainyard_kube.user_client import UserClient, connect_users


class ApiServer:
    """An HTTP server that returns one response and records the requests."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.response = web.json_response({"kind": "TrainingJob"})

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        return self.response


def write_kubeconfig(folder: Path, server: str, user: dict[str, str]) -> str:
    path = folder / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    path.write_text(json.dumps(document))
    return str(path)


@pytest.fixture
def server() -> ApiServer:
    return ApiServer()


@pytest.fixture
async def users(server: ApiServer, tmp_path: Path) -> AsyncIterator[UserClient]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    async with TestServer(app) as running:
        client = await connect_users(write_kubeconfig(tmp_path, str(running.make_url("/")), {"token": "own"}))
        yield client
        await client.close()


async def test_request_carries_the_users_token_only(server: ApiServer, users: UserClient) -> None:
    document = await users.get("/apis/x", "user", [("limit", "5")])
    assert document == {"kind": "TrainingJob"}
    request = server.requests[0]
    assert (request.path, dict(request.query)) == ("/apis/x", {"limit": "5"})
    assert request.headers.getall("Authorization") == ["Bearer user"]


async def test_cookies_are_not_kept(server: ApiServer, users: UserClient) -> None:
    server.response.set_cookie("session", "of-a-user")
    await users.get("/a", "user")
    server.response = web.json_response({})
    await users.get("/a", "other")
    assert "Cookie" not in server.requests[1].headers


@pytest.mark.parametrize(
    ("code", "content", "message"),
    [(403, '{"message": "no"}', "no"), (502, "proxy error", "proxy error"), (302, "", "")],
)
async def test_error_status_is_raised(
    server: ApiServer, users: UserClient, code: int, content: str, message: str
) -> None:
    server.response = web.Response(status=code, text=content, headers={"Location": "/elsewhere"})
    with pytest.raises(ApiRefusedError) as caught:
        await users.get("/a", "user")
    assert (caught.value.code, caught.value.message) == (code, message)
    assert len(server.requests) == 1  # a redirect is not followed


async def test_missing_response_is_raised(server: ApiServer, users: UserClient, tmp_path: Path) -> None:
    server.response = web.Response(text="{")
    with pytest.raises(ApiUnreachableError):
        await users.get("/a", "user")
    unreachable = await connect_users(write_kubeconfig(tmp_path, "http://127.0.0.1:1", {}))
    with pytest.raises(ApiUnreachableError, match="GET /a got no answer: Cannot connect"):
        await unreachable.get("/a", "user")
    await unreachable.close()


async def test_client_certificate_of_the_kubeconfig_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "broken.pem").write_text("not a certificate")
    user = {"client-certificate": str(tmp_path / "broken.pem"), "client-key": str(tmp_path / "broken.pem")}
    client = await connect_users(write_kubeconfig(tmp_path, "https://127.0.0.1:6443", user))
    await client.close()


async def test_unusable_kubeconfig_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="set KUBECONFIG"):
        await connect_users(str(tmp_path / "none"))
