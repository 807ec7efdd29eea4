"""The stop flag: set by SIGTERM, polled in every long-running operation.

Imports nothing heavy: the handler is installed first, because PID 1 ignores SIGTERM without a handler.
"""

from __future__ import annotations

import signal
from types import FrameType

from trainyard_trainer.errors import StopRequested


class StopFlag:
    """Flag that records a stop request."""

    def __init__(self) -> None:
        self._requested = False

    def install(self) -> None:
        """Install handlers of SIGTERM and SIGINT that set the flag."""
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)
        # The launcher of a group starts its processes with both signals blocked.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._requested = True

    def request(self) -> None:
        """Set the flag."""
        self._requested = True

    @property
    def requested(self) -> bool:
        """Whether a stop was requested."""
        return self._requested

    def check(self) -> None:
        """Raise StopRequested if the flag is set."""
        if self._requested:
            raise StopRequested("Stopped on request.")
