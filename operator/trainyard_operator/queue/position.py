"""Places in the queue: exact near the head, rounded behind, and not worth a write at every step of those before."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import NamedTuple

from trainyard_operator.queue.models import Request
from trainyard_operator.queue.pool import Pool

EXACT = 20
"""Places told exactly."""
APART = 10.0
"""Seconds between two writes of one job's place: every start moves everybody, which made Kueue give up places in its
status (KEP-168)."""
TOLD_PER_SECOND = 5.0
"""Places and reasons told anew per second, over all jobs."""
_STEPS = ((100, 10), (500, 50))
_STEP = 100


class Place(NamedTuple):
    """A job's place.

    Attributes:
        position: From 1; beyond EXACT the upper end of a range.
        length: Jobs that wait in the pool, rounded in the same way.
    """

    position: int
    length: int


def places(waiting: Iterable[Request]) -> dict[str, Place]:
    """Each job's place among those of its pool, by UID.

    Args:
        waiting: The jobs that wait, in order.
    """
    requests = list(waiting)
    lengths: dict[Pool, int] = {}
    positions: dict[str, int] = {}
    for request in requests:
        lengths[request.pool] = positions[request.uid] = lengths.get(request.pool, 0) + 1
    return {request.uid: Place(rounded(positions[request.uid]), rounded(lengths[request.pool])) for request in requests}


@functools.cache
def rounded(count: int) -> int:
    """The number as it is told: itself, or the end of its range (30 for 21 to 30, 150 for 101 to 150)."""
    if count <= EXACT:
        return count
    step = next((step for limit, step in _STEPS if count <= limit), _STEP)
    return -(-count // step) * step
