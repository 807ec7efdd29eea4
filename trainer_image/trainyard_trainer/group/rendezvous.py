"""Rendezvous of the pods of a gang before their processes start: all pods connect to pod 0, which starts the group."""

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
"""Longest wait of the first pod for the last one: images are pulled, volumes mounted."""
_POLL_SECONDS = 0.2
_RESULT_SECONDS = 2.0
_RETRY_SECONDS = 1.0
_CONNECT_SECONDS = 5.0
_LOG_SECONDS = 30.0
_TIMEOUT_ADVICE = "The next start waits again. If a pod does not start, see kubectl describe pod."

LogEvent = Callable[[str, str], None]
"""Logs an event: (type, sentence)."""


def rendezvous(
    node: Node,
    group: str,
    *,
    stop: StopFlag,
    log_event: LogEvent,
    find_result: FindResult,
    timeout: float = RENDEZVOUS_TIMEOUT_SECONDS,
) -> ConnectedPodPeers | Termination:
    """Connect the pods of a group.

    Args:
        node: This pod, with the address of pod 0.
        group: Identifier of the group, equal in all its pods and in no other group.
        stop: Polled while waiting.
        log_event: Logs what the pod waits for.
        find_result: Polled while waiting: no pod joins a run that has finished.
        timeout: Longest wait, in seconds.

    Returns:
        The connected peers, or the result of the run if it has finished.

    Raises:
        StopRequested: This pod was requested to stop.
        PeerLostError: A pod did not join in time.
    """
    wait = _Wait(stop=stop, log_event=log_event, find_result=find_result, timeout=timeout)
    try:
        if node.index == 0:
            channels = _accept_pods(node, group, wait)
            log_event("PodsMet", f"All {node.count} pods of the group are connected.")
            return _start_group(node, channels, find_result)
        return _join_group(node, group, wait, find_result)
    except _RunFinished as finished:
        return finished.result


def _accept_pods(node: Node, group: str, wait: _Wait) -> dict[int, ControlChannel]:
    """In pod 0: wait until all other pods have joined."""
    joined: dict[int, ControlChannel] = {}
    unidentified: list[ControlChannel] = []
    server = _listen(node)
    try:
        while len(joined) < node.count - 1:
            missing = sorted({*range(1, node.count)} - joined.keys())
            text = f"Pod 0 of {node.count} waits for {_pod_names(missing)}"
            wait.poll(text, [server, *unidentified, *joined.values()])
            with suppress(BlockingIOError):
                unidentified.append(ControlChannel(server.accept()[0], time.monotonic()))
            unidentified = _identify(unidentified, joined, node, group)
            _drop_ended(joined)
    finally:
        server.close()
        for channel in unidentified:
            channel.close()
    return joined


def _start_group(node: Node, channels: dict[int, ControlChannel], find_result: FindResult) -> ConnectedPodPeers:
    """In pod 0: send the port of the processes' rendezvous to all pods."""
    port = free_port("" if _loopback_address(node) is None else LOOPBACK)
    for channel in channels.values():
        channel.send(Message(kind="start", port=port))
    interface = node.interface or interface_of(next(iter(channels.values())).own_address)
    return ConnectedPodPeers(replace(node, address=LOOPBACK, port=port, interface=interface), channels, find_result)


def _identify(
    unidentified: Sequence[ControlChannel], joined: dict[int, ControlChannel], node: Node, group: str
) -> list[ControlChannel]:
    """Add channels with a valid join message to `joined` and close those with any other; return the remaining ones."""
    pending = []
    for channel in unidentified:
        message = next(iter(channel.receive()), None)
        is_pending = message is None and not channel.ended
        if is_pending:
            pending.append(channel)
        elif message is None or not _is_join_of(message, node, group):
            channel.close()
        else:
            if (older := joined.pop(message.index, None)) is not None:
                older.close()  # the pod was restarted
            joined[message.index] = channel
    return pending


def _is_join_of(message: Message, node: Node, group: str) -> bool:
    return message.kind == "join" and message.group == group and 0 < message.index < node.count


def _drop_ended(joined: dict[int, ControlChannel]) -> None:
    for index, channel in list(joined.items()):
        channel.receive()
        channel.heartbeat(time.monotonic())
        if channel.ended:
            joined.pop(index).close()


def _join_group(node: Node, group: str, wait: _Wait, find_result: FindResult) -> ConnectedPodPeers:
    """In every other pod: connect to pod 0 until it starts the group."""
    waiting = f"Pod {node.index} of {node.count} waits for pod 0 at {node.address}:{node.port}"
    why = ""
    while True:
        attempt = _ConnectAttempt(node)
        while attempt.is_running:
            wait.poll(f"{waiting}{why}", [])
        why = f": {attempt.error}"
        if attempt.connection is not None:
            channel = ControlChannel(attempt.connection, time.monotonic())
            channel.send(Message(kind="join", index=node.index, group=group))
            port = _await_start(channel, node, wait)
            if port is not None:
                interface = node.interface or interface_of(channel.own_address)
                own = replace(node, address=channel.peer_address, port=port, interface=interface)
                return ConnectedPodPeers(own, {0: channel}, find_result)
            why = ": it rejects this pod; it may belong to an earlier start"
        retry_at = time.monotonic() + _RETRY_SECONDS
        while time.monotonic() < retry_at:
            wait.poll(f"{waiting}{why}", [])


def _await_start(channel: ControlChannel, node: Node, wait: _Wait) -> int | None:
    """Return the port of the processes' rendezvous, or None if pod 0 closed the channel."""
    try:
        while True:
            wait.poll(f"Pod {node.index} of {node.count} is connected to pod 0 and waits for the other pods", [channel])
            messages = channel.receive()
            for number, message in enumerate(messages):
                if message.kind == "start":
                    channel.push_back(messages[number + 1 :])
                    return message.port
            channel.heartbeat(time.monotonic())
            if channel.ended:
                channel.close()
                return None
    except BaseException:
        channel.close()
        raise


class _RunFinished(Exception):  # noqa: N818 - not an error
    """The run has finished without this pod."""

    def __init__(self, result: Termination) -> None:
        super().__init__()
        self.result = result


class _Wait:
    """Wait with a timeout that polls the stop flag and the run's result."""

    def __init__(self, *, stop: StopFlag, log_event: LogEvent, find_result: FindResult, timeout: float) -> None:
        self._stop = stop
        self._log_event = log_event
        self._find_result = find_result
        self._timeout = timeout
        self._started_at = self._result_checked_at = time.monotonic()
        self._logged, self._logged_at = "", 0.0

    def poll(self, text: str, files: Sequence[ControlChannel | socket.socket]) -> None:
        """Wait for a moment, or until one of the files is readable.

        Raises:
            StopRequested: The pod was requested to stop.
            PeerLostError: The timeout has passed.
            _RunFinished: The run has a result.
        """
        self._stop.check()
        now = time.monotonic()
        if now - self._started_at > self._timeout:
            raise PeerLostError(f"{text}; timed out after {self._timeout:.0f} s.", _TIMEOUT_ADVICE)
        if now - self._result_checked_at > _RESULT_SECONDS:
            self._result_checked_at = now
            if (result := self._find_result()) is not None:
                raise _RunFinished(result)
        if text != self._logged or now - self._logged_at > _LOG_SECONDS:
            self._log_event("WaitingForPods", f"{text}.")
            self._logged, self._logged_at = text, now
        select.select(files, [], [], _POLL_SECONDS)


class _ConnectAttempt:
    """One attempt to connect to pod 0, in a thread because a DNS lookup cannot be interrupted."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.connection: socket.socket | None = None
        self.error = ""
        self._thread = threading.Thread(target=self._connect, daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether the attempt is still in progress."""
        return self._thread.is_alive()

    def _connect(self) -> None:
        try:
            self.connection = socket.create_connection((self._node.address, self._node.port), _CONNECT_SECONDS)
        except socket.gaierror:
            self.error = "the name does not resolve yet"
        except OSError as error:
            self.error = (error.strerror or str(error)).lower()


def _listen(node: Node) -> socket.socket:
    """Listen at all addresses of the pod, or at the loopback address if that is MASTER_ADDR."""
    host, port = _loopback_address(node), node.port
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
        raise PeerLostError(
            f"Pod 0 of the group cannot listen at MASTER_PORT {port}: {why}.", _TIMEOUT_ADVICE
        ) from error
    server.setblocking(False)
    return server


def _loopback_address(node: Node) -> str | None:
    """Return the address of pod 0 if it is a loopback address, as for several launchers on one machine."""
    with suppress(ValueError):
        if ipaddress.ip_address(node.address).is_loopback:
            return node.address
    return None


def _pod_names(pods: Sequence[int]) -> str:
    names = [str(pod) for pod in pods]
    return f"pod {names[0]}" if len(names) == 1 else f"pods {', '.join(names[:-1])} and {names[-1]}"
