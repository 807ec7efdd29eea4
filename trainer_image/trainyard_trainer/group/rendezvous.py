"""How the pods of a group find each other before their processes start: all come to the first one, which says go."""

from __future__ import annotations

import ipaddress
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from trainyard_crds.report import Termination
from trainyard_trainer.errors import PeerLostError
from trainyard_trainer.group.control_channel import ControlChannel, Message
from trainyard_trainer.group.interfaces import free_port, interface_of
from trainyard_trainer.group.membership import LOOPBACK, Node
from trainyard_trainer.group.pod_peers import ConnectedPodPeers, FindResult
from trainyard_trainer.stop import StopFlag

RENDEZVOUS_TIMEOUT_SECONDS = 600.0
"""How long the first who comes waits for the last: images are pulled, volumes mounted."""
_POLL_SECONDS = 0.2
_RESULT_SECONDS = 2.0
_RETRY_SECONDS = 1.0
_CONNECT_SECONDS = 5.0
_SAY_SECONDS = 30.0
_AGAIN = "The next start waits again. Where a pod does not start, kubectl describe pod tells why."

Say = Callable[[str, str], None]
"""Tells (type, sentence) in the log."""


def rendezvous(
    node: Node,
    group: str,
    *,
    stop: StopFlag,
    say: Say,
    find_result: FindResult,
    seconds: float = RENDEZVOUS_TIMEOUT_SECONDS,
) -> ConnectedPodPeers | Termination:
    """Meet the other pods of a group.

    Args:
        node: Which pod this is, and where the first one is found.
        group: What all pods of this group, and no others, say.
        stop: Polled while waiting.
        say: Tells what is waited for.
        find_result: Asked while waiting: nobody comes to a run that has finished.
        seconds: How long is waited.

    Returns:
        The pods, or the result of the run where it has finished.

    Raises:
        StopRequested: This pod was asked to stop.
        PeerLostError: One of the others did not come.
    """
    patience = _Patience(stop=stop, say=say, find_result=find_result, seconds=seconds)
    try:
        if node.index == 0:
            return _gather(node, group, patience, say, find_result)
        return _find(node, group, patience, find_result)
    except _Finished as finished:
        return finished.result


def _gather(node: Node, group: str, patience: _Patience, say: Say, find_result: FindResult) -> ConnectedPodPeers:
    """In the first pod: wait for the others, and tell them where their processes meet."""
    came: dict[int, ControlChannel] = {}
    strangers: list[ControlChannel] = []
    server = _listen(node)
    try:
        while len(came) < node.count - 1:
            missing = sorted({*range(1, node.count)} - came.keys())
            patience.wait(f"Pod 0 of {node.count} waits for {_named(missing)}", [server, *strangers, *came.values()])
            with suppress(BlockingIOError):
                strangers.append(ControlChannel(server.accept()[0], time.monotonic()))
            strangers = _sort(strangers, came, node, group)
            for index, link in list(came.items()):
                link.receive()
                link.beat(time.monotonic())
                if link.ended:
                    came.pop(index).close()
    finally:
        server.close()
        for link in strangers:
            link.close()
    port = free_port("" if _literal(node) is None else LOOPBACK)
    for link in came.values():
        link.send(Message(kind="go", port=port))
    say("PodsMet", f"All {node.count} pods of the group are there.")
    interface = node.interface or interface_of(next(iter(came.values())).own_address)
    return ConnectedPodPeers(replace(node, address=LOOPBACK, port=port, interface=interface), came, find_result)


def _sort(
    strangers: Sequence[ControlChannel], came: dict[int, ControlChannel], node: Node, group: str
) -> list[ControlChannel]:
    """Move those who say hello to those who came, send away who says anything else; who has said nothing yet."""
    silent = []
    for link in strangers:
        greeting = next(iter(link.receive()), None)
        if greeting is None and not link.ended:
            silent.append(link)
        elif (
            greeting is None
            or greeting.kind != "hello"
            or greeting.group != group
            or not 0 < greeting.index < node.count
        ):
            link.close()
        else:
            if (older := came.pop(greeting.index, None)) is not None:
                older.close()  # it was started again
            came[greeting.index] = link
    return silent


def _find(node: Node, group: str, patience: _Patience, find_result: FindResult) -> ConnectedPodPeers:
    """In another pod: look for the first one until it says go."""
    waiting = f"Pod {node.index} of {node.count} waits for pod 0 at {node.address}:{node.port}"
    why = ""
    while True:
        attempt = _Attempt(node)
        while attempt.is_running:
            patience.wait(f"{waiting}{why}", [])
        why = f": {attempt.why}"
        if attempt.connection is not None:
            link = ControlChannel(attempt.connection, time.monotonic())
            link.send(Message(kind="hello", index=node.index, group=group))
            port = _await_go(link, node, patience)
            if port is not None:
                interface = node.interface or interface_of(link.own_address)
                own = replace(node, address=link.other_address, port=port, interface=interface)
                return ConnectedPodPeers(own, {0: link}, find_result)
            why = ": it does not take this pod, and may be one of an earlier start"
        again = time.monotonic() + _RETRY_SECONDS
        while time.monotonic() < again:
            patience.wait(f"{waiting}{why}", [])


def _await_go(link: ControlChannel, node: Node, patience: _Patience) -> int | None:
    """The port at which the processes meet; None where the other side is gone."""
    try:
        while True:
            patience.wait(f"Pod {node.index} of {node.count} has found pod 0 and waits until all are there", [link])
            messages = link.receive()
            for number, message in enumerate(messages):
                if message.kind == "go":
                    link.keep(messages[number + 1 :])
                    return message.port
            link.beat(time.monotonic())
            if link.ended:
                link.close()
                return None
    except BaseException:
        link.close()
        raise


class _Finished(Exception):  # noqa: N818 - not an error
    """The run has finished without this pod."""

    def __init__(self, result: Termination) -> None:
        super().__init__()
        self.result = result


class _Patience:
    """Waits a little, again and again, until it is too long."""

    def __init__(self, *, stop: StopFlag, say: Say, find_result: FindResult, seconds: float) -> None:
        self._stop = stop
        self._say = say
        self._find_result = find_result
        self._seconds = seconds
        self._began = self._looked_at = time.monotonic()
        self._said, self._said_at = "", 0.0

    def wait(self, text: str, files: Sequence[ControlChannel | socket.socket]) -> None:
        """Wait until one of the files can be read, a moment at most.

        Raises:
            StopRequested: The pod was asked to stop.
            PeerLostError: The time is over.
            _Finished: There is a result.
        """
        self._stop.check()
        now = time.monotonic()
        if now - self._began > self._seconds:
            raise PeerLostError(f"{text}; {self._seconds:.0f} s were not enough.", _AGAIN)
        if now - self._looked_at > _RESULT_SECONDS:
            self._looked_at = now
            if (result := self._find_result()) is not None:
                raise _Finished(result)
        if text != self._said or now - self._said_at > _SAY_SECONDS:
            self._say("WaitingForPods", f"{text}.")
            self._said, self._said_at = text, now
        select.select(files, [], [], _POLL_SECONDS)


class _Attempt:
    """One attempt to connect to the first pod, in a thread: looking a name up cannot be interrupted."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.connection: socket.socket | None = None
        self.why = ""
        self._thread = threading.Thread(target=self._connect, daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether its outcome is not known yet."""
        return self._thread.is_alive()

    def _connect(self) -> None:
        try:
            self.connection = socket.create_connection((self._node.address, self._node.port), _CONNECT_SECONDS)
        except socket.gaierror:
            self.why = "that name has no address yet"
        except OSError as error:
            self.why = (error.strerror or str(error)).lower()


def _listen(node: Node) -> socket.socket:
    """Where the others come to: at all addresses of the pod, or at the one of loopback they were told of."""
    host, port = _literal(node), node.port
    try:
        if host is not None:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            server = socket.create_server((host, port), family=family)
        elif socket.has_dualstack_ipv6():
            server = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        else:
            server = socket.create_server(("", port))
    except OSError as error:
        why = error.strerror or str(error)
        raise PeerLostError(f"The pods of the group cannot meet at MASTER_PORT {port}: {why}.", _AGAIN) from error
    server.setblocking(False)
    return server


def _literal(node: Node) -> str | None:
    """The address of the loopback interface where that is what the others were told, as on one machine."""
    with suppress(ValueError):
        if ipaddress.ip_address(node.address).is_loopback:
            return node.address
    return None


def _named(pods: Sequence[int]) -> str:
    words = [str(pod) for pod in pods]
    return f"pod {words[0]}" if len(words) == 1 else f"pods {', '.join(words[:-1])} and {words[-1]}"
