"""Which ModelDeployment a request is for."""

from __future__ import annotations

import pytest

from trainyard_gateway.activator.targets import Target, target_of


@pytest.mark.parametrize(
    "host",
    [
        "bot.team",
        "bot.team:8000",
        "bot.team.svc",
        "bot.team.svc:80",
        "bot.team.svc.cluster.local",
        "BOT.team.svc.example.org.:8000",
    ],
)
def test_host_of_the_service(host: str) -> None:
    assert target_of(host, None) == Target("team", "bot")


@pytest.mark.parametrize(
    "host", ["bot", "", "10.0.0.1:8000x", "a b.c", "bot.team.svc/..", "bot.team/x", "-a.b", "[::1]:80"]
)
def test_other_hosts(host: str) -> None:
    assert target_of(host, None) is None


@pytest.mark.parametrize(
    ("header", "expected"), [("team/bot", Target("team", "bot")), ("bot", None), ("../x", None), ("", None)]
)
def test_header_of_a_route_counts_instead_of_the_host(header: str, expected: Target | None) -> None:
    assert target_of("chat.example.com.other", header) == expected
