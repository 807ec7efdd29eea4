"""The stop flag: set by SIGTERM, polled wherever time is spent.

Imports nothing heavy: the handler is installed before anything else, because PID 1 without a handler ignores SIGTERM.
"""

from __future__ import annotations

import signal
from types import FrameType

from trainyard_trainer.errors import StopRequested


class StopFlag:
    """Whether the run was asked to stop."""

    def __init__(self) -> None:
        self._requested = False

    def install(self) -> None:
        """Let SIGTERM and SIGINT set the flag."""
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)
        # The launcher of a group starts its processes with both of them held back.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._requested = True

    def request(self) -> None:
        """Set the flag."""
        self._requested = True

    @property
    def requested(self) -> bool:
        """Whether the run was asked to stop."""
        return self._requested

    def check(self) -> None:
        """Unwind with StopRequested when the flag is set."""
        if self._requested:
            raise StopRequested("Stopped on request.")
