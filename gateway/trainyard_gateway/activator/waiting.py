"""Requests that wait for a first replica: bounded for each ModelDeployment and in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from trainyard_gateway.activator.targets import Target

MOST = 2000
"""Requests that wait in one gateway."""


class FullError(Exception):
    """No further request may wait."""


class Waiting:
    """Counts waiting requests."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._counts: Counter[Target] = Counter()

    @contextmanager
    def place(self, target: Target, limit: int) -> Iterator[None]:
        """Hold a place of a ModelDeployment.

        Raises:
            FullError: so many requests wait already.
        """
        if self._counts[target] >= limit or self._counts.total() >= self._most:
            raise FullError
        self._counts[target] += 1
        try:
            yield
        finally:
            self._counts[target] -= 1
            if not self._counts[target]:
                del self._counts[target]

    def count(self, target: Target) -> int:
        """Return how many requests wait for a ModelDeployment."""
        return self._counts[target]

    def all(self) -> dict[Target, int]:
        """Return the numbers of all that have any."""
        return dict(self._counts)
