"""Listening socket with a limit of open connections, which bounds the memory of the process."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

INTAKE_LIMIT = 512
"""Open connections of the intake. Each costs up to 0.5 MB (asyncio's TLS buffers): half of the memory limit in all."""
API_LIMIT = 64
"""Open connections of the REST API, apart from the intake so that users cannot displace trainer pods."""
CLOSABLE_AGE_SECONDS = 30.0
"""Age from which a connection may be closed in favour of a new one; a report takes a second."""


class BoundedListener(socket.socket):
    """Closes a new connection at once while the limit is reached; its client retries.

    Args:
        listening: The socket to take over; the caller must not use it any more.
        clock: Monotonic seconds.
        refused: Called for each connection that is closed at once.
        limit: Maximum of open connections.
    """

    def __init__(
        self, listening: socket.socket, *, clock: Callable[[], float], refused: Callable[[], None], limit: int
    ) -> None:
        super().__init__(listening.family, listening.type, listening.proto, listening.detach())
        self._clock, self._refused, self._limit = clock, refused, limit
        self._accepted: dict[socket.socket, float] = {}

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the next connection and its address.

        Raises:
            ConnectionAbortedError: the limit is reached; the new connection is closed.
            BlockingIOError: no connection is waiting.
        """
        connection, address = super().accept()
        self._accepted = {each: since for each, since in self._accepted.items() if each.fileno() >= 0}
        if len(self._accepted) >= self._limit:
            self._close_old()
            connection.close()
            self._refused()
            raise ConnectionAbortedError("too many connections")
        self._accepted[connection] = self._clock()
        return connection, address

    def _close_old(self) -> None:
        oldest = self._clock() - CLOSABLE_AGE_SECONDS
        for each, since in self._accepted.items():
            if since <= oldest:
                _shutdown(each)


def _shutdown(connection: socket.socket) -> None:
    """Shut a connection down; its reader gets end-of-file and closes it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # already closed
        return
