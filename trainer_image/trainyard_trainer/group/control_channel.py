"""A connection between the launchers of two pods: messages as JSON lines, and a beat that shows the other one lives."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from trainyard_crds.report import Termination

HEARTBEAT_SECONDS = 5.0
"""How often a launcher lets the others hear from it."""
MOST_MISSED = 12
"""So many of its own beats a launcher waits for one of another: a minute, however slow both are."""
_CHUNK = 65536
_LONGEST = 65536
"""Bytes of a message; the longest is a last word."""


class Message(BaseModel):
    """What one launcher tells another."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["hello", "go", "beat", "stop", "trained", "lost", "done"]
    """hello: a pod comes. go: all are there. stop: it was asked to. trained: its processes have nothing more to do.
    lost: the group is broken, for the reason in `text`. done: it ends with `word`."""
    index: int = 0
    """Of the pod that says hello."""
    group: str = ""
    """Of the pod that says hello: what all pods of its group say."""
    port: int = 0
    """Where the processes meet, with go."""
    text: str = ""
    word: Termination | None = None


class ControlChannel:
    """One side of a connection; nothing here waits."""

    def __init__(self, connection: socket.socket, now: float) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._buffer = b""
        self._kept: list[Message] = []
        self._next_beat = now
        self._missed = 0
        self.ended = False
        """Whether nothing more will come."""

    def fileno(self) -> int:
        """For select."""
        return self._connection.fileno()

    @property
    def own_address(self) -> str:
        """This side's IP address."""
        return _address(self._connection.getsockname()[0])

    @property
    def other_address(self) -> str:
        """The other side's IP address."""
        return _address(self._connection.getpeername()[0])

    def beat(self, now: float) -> None:
        """Let the other side hear from this one when that is due, and give it up after a minute of silence.

        Beats are counted, not seconds: after a halt of this very process nobody is given up.

        Args:
            now: Monotonic seconds.
        """
        if now >= self._next_beat:
            self._next_beat = now + HEARTBEAT_SECONDS
            self._missed += 1
            self.ended |= self._missed > MOST_MISSED
            self.send(Message(kind="beat"))

    def send(self, message: Message) -> None:
        """Send a message; a side that does not take it has been gone for long."""
        data = message.model_dump_json(by_alias=True, exclude_defaults=True).encode() + b"\n"
        try:
            self.ended |= self._connection.send(data) < len(data)
        except OSError:
            self.ended = True

    def receive(self) -> list[Message]:
        """What has come meanwhile. A side that says what is no message is none of ours."""
        try:
            while len(self._buffer) <= _LONGEST and (data := self._connection.recv(_CHUNK)):
                self._missed = 0
                self._buffer += data
            self.ended = True
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True
        *lines, self._buffer = self._buffer.split(b"\n")
        try:
            found = [*self._kept, *(Message.model_validate_json(line) for line in lines)]
        except ValidationError:
            self.ended = True
            return []
        self._kept = []
        self.ended |= len(self._buffer) > _LONGEST
        return found

    def keep(self, messages: Sequence[Message]) -> None:
        """Let messages that came along with others be received once more."""
        self._kept = [*messages]

    def finish(self) -> None:
        """Say no more; what was said still arrives."""
        try:
            self._connection.shutdown(socket.SHUT_WR)
        except OSError:
            self.ended = True

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _address(text: str) -> str:
    """IPv4 as such where the socket is one of IPv6."""
    return text.removeprefix("::ffff:")
