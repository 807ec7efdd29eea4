from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.unit.gateway.fakes import Clock
from tests.unit.timeouts import TIMEOUT
from trainyard_gateway.connection_limit import CLOSABLE_AGE_SECONDS, BoundedListener


class Setup:
    def __init__(self, stack: ExitStack) -> None:
        self.stack, self.clock, self.refused = stack, Clock(), 0
        listening = socket.create_server(("127.0.0.1", 0))
        self.listener = stack.enter_context(BoundedListener(listening, clock=self.clock, refused=self._refuse, limit=2))

    def connect(self) -> socket.socket:
        client = self.stack.enter_context(socket.create_connection(self.listener.getsockname(), TIMEOUT))
        client.settimeout(TIMEOUT)
        return client

    def take(self) -> tuple[socket.socket, socket.socket]:
        """Both ends of a new connection: the client's and ours."""
        client = self.connect()
        return client, self.stack.enter_context(self.listener.accept()[0])

    def _refuse(self) -> None:
        self.refused += 1


@pytest.fixture
def setup() -> Iterator[Setup]:
    with ExitStack() as stack:
        yield Setup(stack)


def test_connection_above_the_limit_is_closed(setup: Setup) -> None:
    kept = [setup.take(), setup.take()]
    surplus = setup.connect()
    with pytest.raises(ConnectionAbortedError):
        setup.listener.accept()
    assert surplus.recv(1) == b""
    assert setup.refused == 1
    kept[0][1].sendall(b"x")
    assert kept[0][0].recv(1) == b"x"


def test_closed_connection_frees_a_slot(setup: Setup) -> None:
    _, ours = setup.take()
    setup.take()
    ours.close()
    setup.take()
    assert setup.refused == 0


def test_old_connection_is_closed_in_favour_of_a_new_one(setup: Setup) -> None:
    stays, ours = setup.take()
    setup.clock.now += CLOSABLE_AGE_SECONDS
    young, _ = setup.take()
    setup.connect()
    with pytest.raises(ConnectionAbortedError):
        setup.listener.accept()
    assert (stays.recv(1), ours.recv(1)) == (b"", b"")  # asyncio reads this end, and closes the socket
    ours.close()
    setup.take()
    young.setblocking(False)
    with pytest.raises(BlockingIOError):
        young.recv(1)
