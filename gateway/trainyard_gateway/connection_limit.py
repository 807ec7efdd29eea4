"""A listening socket that bounds how many connections are open, and with them the memory of the process."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

LIMIT = 512
"""Connections at once. One costs up to 0.5 MB (asyncio's TLS buffers), so all of them half of the memory limit."""
LONGEST_SECONDS = 30.0
"""Age from which a connection may be cut when others want its place; a report takes a second."""


class BoundedListener(socket.socket):
    """Closes a new connection at once while too many others are open: its client tries again.

    Args:
        listening: The socket to take over; it is not to be used any more.
        clock: Monotonic seconds.
        refused: Called for each connection that is closed at once.
        limit: Most connections at once.
    """

    def __init__(
        self, listening: socket.socket, *, clock: Callable[[], float], refused: Callable[[], None], limit: int = LIMIT
    ) -> None:
        super().__init__(listening.family, listening.type, listening.proto, listening.detach())
        self._clock, self._refused, self._limit = clock, refused, limit
        self._accepted: dict[socket.socket, float] = {}

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection and its address.

        Raises:
            ConnectionAbortedError: there was one too many; it is closed.
            BlockingIOError: there is none.
        """
        connection, address = super().accept()
        self._accepted = {each: since for each, since in self._accepted.items() if each.fileno() >= 0}
        if len(self._accepted) >= self._limit:
            self._cut_old()
            connection.close()
            self._refused()
            raise ConnectionAbortedError("too many connections")
        self._accepted[connection] = self._clock()
        return connection, address

    def _cut_old(self) -> None:
        oldest = self._clock() - LONGEST_SECONDS
        for each, since in self._accepted.items():
            if since <= oldest:
                _shut(each)


def _shut(connection: socket.socket) -> None:
    """End a connection; whoever reads it sees the end and closes it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # the other side was faster
        return
