"""Credentials and pacing of kopf's requests."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kopf
import pytest
from yarl import URL

from trainyard_kube.kopf_session import Login
from trainyard_kube.rate_limit import Pacer


async def test_login_returns_renewed_credentials_and_never_refused_ones(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"

    def write(token: str) -> None:
        document = {
            "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        kubeconfig.write_text(json.dumps(document))

    async def sleep(_: float) -> None:
        return

    login, arguments = Login(str(kubeconfig), Pacer(lambda: 0.0, sleep), print), {"settings": kopf.OperatorSettings()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(kubeconfig))
        for token in ("first", "second"):
            write(token)
            session = await login.session(**arguments)
            assert session is not None
            assert session.aiohttp_session.headers["Authorization"] == f"Bearer {token}"
            assert await login.session(**arguments) is None
            await session.aiohttp_session.close()


async def test_session_reports_lists_and_not_watches() -> None:
    async def sleep(_: float) -> None:
        return

    async def answer(_: Any) -> Any:
        return "answer"

    listed: list[str] = []
    login = Login(None, Pacer(lambda: 0.0, sleep), listed.append)
    for url in ("https://api/api/v1/pods?limit=500", "https://api/api/v1/pods?watch=true"):
        request: Any = SimpleNamespace(url=URL(url))
        got: Any = await login._pace(request, answer)
        assert got == "answer"
    assert listed == ["/api/v1/pods"]
