"""Time of the API server."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from trainyard_kube import clock
from trainyard_kube.clock import ServerClock


def test_estimate_moves_only_as_far_as_an_answer_requires(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    server = ServerClock()
    server.observe("Fri, 02 Jan 2026 10:00:00 GMT", 100.0)
    assert server.now() == datetime(2026, 1, 2, 10, 0, 0, tzinfo=UTC)
    now[0] = 130.5
    assert server.now() == datetime(2026, 1, 2, 10, 0, 30, 500000, tzinfo=UTC)
    server.observe("Fri, 02 Jan 2026 10:00:30 GMT", 130.5)
    assert server.now() == datetime(2026, 1, 2, 10, 0, 30, 500000, tzinfo=UTC)
    server.observe("Fri, 02 Jan 2026 11:00:30 GMT", 130.5)
    assert server.now() == datetime(2026, 1, 2, 11, 0, 30, tzinfo=UTC)
    server.observe("nonsense", 130.5)
