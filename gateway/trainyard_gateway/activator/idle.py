"""When an idle ModelDeployment is scaled to zero. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from trainyard_crds.serving import ReplicaState


def is_idle(
    states: Iterable[ReplicaState | None],
    ready_since: Iterable[datetime],
    started: datetime,
    now: datetime,
    seconds: int,
) -> bool:
    """Return whether nothing was asked for so long.

    Args:
        states: What each ready replica reports; None for one that does not answer, which counts as busy.
        ready_since: When each became ready.
        started: When this process started, which knows nothing of requests before.
        now: The time.
        seconds: spec.scaleToZero.idleSeconds.
    """
    newest = max([started, *ready_since])
    for state in states:
        if state is None or state.in_flight:
            return False
        if state.last_request_at is not None:
            newest = max(newest, datetime.fromisoformat(state.last_request_at))
    return (now - newest).total_seconds() >= seconds
