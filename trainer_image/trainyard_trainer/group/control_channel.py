"""Control channel between the launchers of two pods: messages as JSON lines, with heartbeats."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from trainyard_crds.report import Termination

HEARTBEAT_SECONDS = 5.0
"""Interval between heartbeats."""
MAX_MISSED_HEARTBEATS = 12
"""A peer is lost once this launcher has sent so many heartbeats without receiving anything: a minute."""
_CHUNK = 65536
_MAX_MESSAGE_BYTES = 65536
"""The longest message carries a termination."""


class Message(BaseModel):
    """A message from one launcher to another."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["join", "start", "heartbeat", "stop", "trained", "lost", "exit"]
    """join: a pod joins the rendezvous. start: all pods are present. stop: the sender was requested to stop.
    trained: the sender's processes have finished training. lost: the group is broken, for the reason in `text`.
    exit: the sender exits with `termination`."""
    index: int = 0
    """join: index of the pod."""
    group: str = ""
    """join: identifier of the group, equal in all its pods."""
    port: int = 0
    """start: port of the rendezvous of the processes."""
    text: str = ""
    termination: Termination | None = None


class ControlChannel:
    """One side of a connection; no method blocks."""

    def __init__(self, connection: socket.socket, now: float) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._buffer = b""
        self._pushed_back: list[Message] = []
        self._next_heartbeat = now
        self._missed = 0
        self.ended = False
        """Whether the connection is closed or the peer is considered lost."""

    def fileno(self) -> int:
        """Return the file descriptor, for select."""
        return self._connection.fileno()

    @property
    def own_address(self) -> str:
        """IP address of this side."""
        return _address(self._connection.getsockname()[0])

    @property
    def peer_address(self) -> str:
        """IP address of the peer."""
        return _address(self._connection.getpeername()[0])

    def heartbeat(self, now: float) -> None:
        """Send a heartbeat if it is due, and end the channel after too many without an answer.

        Heartbeats are counted instead of seconds, so that a pause of this process does not make it drop its peers.

        Args:
            now: Monotonic seconds.
        """
        if now >= self._next_heartbeat:
            self._next_heartbeat = now + HEARTBEAT_SECONDS
            self._missed += 1
            self.ended |= self._missed > MAX_MISSED_HEARTBEATS
            self.send(Message(kind="heartbeat"))

    def send(self, message: Message) -> None:
        """Send a message; a peer that does not accept it is considered lost."""
        data = message.model_dump_json(by_alias=True, exclude_defaults=True).encode() + b"\n"
        try:
            self.ended |= self._connection.send(data) < len(data)
        except OSError:
            self.ended = True

    def receive(self) -> list[Message]:
        """Return the messages received since the last call; an invalid message ends the channel."""
        try:
            while len(self._buffer) <= _MAX_MESSAGE_BYTES and (data := self._connection.recv(_CHUNK)):
                self._missed = 0
                self._buffer += data
            self.ended = True
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True
        *lines, self._buffer = self._buffer.split(b"\n")
        try:
            found = [*self._pushed_back, *(Message.model_validate_json(line) for line in lines)]
        except ValidationError:
            self.ended = True
            return []
        self._pushed_back = []
        self.ended |= len(self._buffer) > _MAX_MESSAGE_BYTES
        return found

    def push_back(self, messages: Sequence[Message]) -> None:
        """Return messages again from the next `receive`."""
        self._pushed_back = [*messages]

    def shutdown_write(self) -> None:
        """Close the sending direction; data already sent is still delivered."""
        try:
            self._connection.shutdown(socket.SHUT_WR)
        except OSError:
            self.ended = True

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _address(text: str) -> str:
    """Return the IPv4 address of an IPv4-mapped IPv6 address."""
    return text.removeprefix("::ffff:")
