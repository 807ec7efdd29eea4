"""Requests, their paths and their errors."""

from __future__ import annotations

from typing import Any

import pytest

from trainyard_kube.client import KubeClient
from trainyard_kube.clock import ServerClock
from trainyard_kube.errors import ConflictError, LeadershipLostError, ServerError, status_error
from trainyard_kube.paths import CONFIG_MAPS, PODS, path


class Unused:
    """A transport that must not be used."""

    async def param_serialize(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("a request was made")


async def test_write_fence_prevents_writes_and_permits_reads() -> None:
    kube = KubeClient(Unused(), ServerClock(), "manager")

    def check() -> None:
        raise LeadershipLostError("old")

    kube.set_write_fence(check)
    for write in (kube.create, kube.replace, kube.merge, kube.apply):
        with pytest.raises(LeadershipLostError):
            await write("/api/v1/x", {})
    with pytest.raises(LeadershipLostError):
        await kube.delete("/api/v1/x")
    with pytest.raises(AssertionError, match="was made"):
        await kube.get("/api/v1/x")


def test_each_status_has_an_error_class() -> None:
    assert isinstance(status_error(409, "Conflict", "m"), ConflictError)
    assert isinstance(status_error(503, "", "m"), ServerError)
    assert str(status_error(418, "", "short and stout")) == "418: short and stout"


def test_paths_are_quoted() -> None:
    assert path(PODS, "team", "a", "log") == "/api/v1/namespaces/team/pods/a/log"
    assert path(CONFIG_MAPS) == "/api/v1/configmaps"
    assert path(PODS, "a/b", "../c") == "/api/v1/namespaces/a%2Fb/pods/..%2Fc"
