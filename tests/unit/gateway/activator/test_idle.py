"""When an idle ModelDeployment is scaled to zero."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from trainyard_crds.serving import ReplicaPhase, ReplicaState
from trainyard_gateway.activator.idle import is_idle

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def ago(seconds: int) -> datetime:
    return NOW - timedelta(seconds=seconds)


def state(last: int | None = None, in_flight: int = 0) -> ReplicaState:
    at = None if last is None else ago(last).strftime("%Y-%m-%dT%H:%M:%SZ")
    return ReplicaState(phase=ReplicaPhase.SERVING, adapter_set="", in_flight=in_flight, last_request_at=at)


@pytest.mark.parametrize(
    ("states", "ready", "started", "expected"),
    [
        ([state(100)], [ago(500)], ago(1000), True),
        ([state(99)], [ago(500)], ago(1000), False),
        ([state()], [ago(100)], ago(1000), True),
        ([state()], [ago(99)], ago(1000), False),
        ([state(500)], [ago(500)], ago(99), False),
        ([state(500, in_flight=1)], [ago(500)], ago(1000), False),
        ([None], [ago(500)], ago(1000), False),
        ([state(500), state(50)], [ago(500), ago(500)], ago(1000), False),
    ],
    ids=[
        "idle",
        "asked",
        "never asked",
        "just ready",
        "gateway restarted",
        "in flight",
        "no answer",
        "one of two asked",
    ],
)
def test_idle(states: list[ReplicaState | None], ready: list[datetime], started: datetime, expected: bool) -> None:
    assert is_idle(states, ready, started, NOW, 100) is expected
