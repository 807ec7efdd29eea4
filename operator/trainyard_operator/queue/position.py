"""Queue positions as the status shows them: exact near the head, rounded further back, to save status writes."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import NamedTuple

from trainyard_operator.queue.models import Request
from trainyard_operator.queue.pool import Pool

EXACT_POSITIONS = 20
"""Positions that are not rounded."""
PUBLISH_INTERVAL = 10.0
"""Least seconds between two status writes for one waiting job. Every start moves all jobs behind it, which made Kueue
drop positions from its status (KEP-168)."""
PUBLISH_RATE = 5.0
"""Status updates of waiting jobs per second, over all jobs."""
_STEPS = ((100, 10), (500, 50))
_STEP = 100


class QueuePosition(NamedTuple):
    """The position of a job in its queue.

    Attributes:
        position: From 1; beyond EXACT_POSITIONS the upper end of a range.
        length: Jobs that wait in the pool, rounded in the same way.
    """

    position: int
    length: int


def positions(waiting: Iterable[Request]) -> dict[str, QueuePosition]:
    """Return the position of each job within its pool, by UID.

    Args:
        waiting: The waiting jobs, in order.
    """
    requests = list(waiting)
    lengths: dict[Pool, int] = {}
    exact: dict[str, int] = {}
    for request in requests:
        lengths[request.pool] = exact[request.uid] = lengths.get(request.pool, 0) + 1
    return {
        request.uid: QueuePosition(rounded(exact[request.uid]), rounded(lengths[request.pool])) for request in requests
    }


@functools.cache
def rounded(count: int) -> int:
    """Round a count up to the end of its range (30 for 21 to 30, 150 for 101 to 150); small counts stay exact."""
    if count <= EXACT_POSITIONS:
        return count
    step = next((step for limit, step in _STEPS if count <= limit), _STEP)
    return -(-count // step) * step
