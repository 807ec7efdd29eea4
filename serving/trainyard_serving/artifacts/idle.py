"""When an artifact reader ends by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class IdleTimer:
    """Measures how long nothing has been read.

    Args:
        seconds: Idle time after which the reader ends.
        clock: Monotonic seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds, self._clock = seconds, clock
        self._since, self._open = clock(), 0

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request while it is answered."""
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            self._since = self._clock()

    @property
    def left(self) -> float:
        """Seconds until the reader ends if nothing is read; not below 0."""
        return self._seconds if self._open else max(0.0, self._seconds - (self._clock() - self._since))
