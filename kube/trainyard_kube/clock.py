"""Time of the API server, advanced by a monotonic clock. The only module that reads a clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

monotonic = time.monotonic
"""Seconds that never jump."""


class ServerClock:
    """Time of the API server, derived from the `Date` header of its answers.

    A `Date` has whole seconds, so each answer bounds the time to one second; the estimate moves only as far as the
    newest answer requires. Before the first answer the machine's own clock is used.
    """

    def __init__(self) -> None:
        self._offset: float | None = None

    def observe(self, date: str, at: float) -> None:
        """Apply the `Date` header of an answer that arrived at the monotonic time `at`."""
        try:
            earliest = parsedate_to_datetime(date).timestamp() - at
        except ValueError:
            return
        latest = earliest + 1.0
        self._offset = earliest if self._offset is None else min(max(self._offset, earliest), latest)

    def now(self) -> datetime:
        """Return the time in UTC."""
        if self._offset is None:
            return datetime.now(UTC)
        return datetime.fromtimestamp(0, UTC) + timedelta(seconds=self._offset + monotonic())
