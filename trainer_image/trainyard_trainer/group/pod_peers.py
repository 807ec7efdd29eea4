"""The launcher's view of the other pods of the gang while its processes run.

`PodPeers` is the view of a single pod, without peers.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Mapping, Sequence

from trainyard_crds.report import Outcome, Termination
from trainyard_trainer.group.control_channel import HEARTBEAT_SECONDS, ControlChannel, Message
from trainyard_trainer.group.membership import Node

_DRAIN_SECONDS = 5.0
_MAX_CAUSE_LENGTH = 600

FindResult = Callable[[], Termination | None]
"""Returns the result of the run if it has finished."""


class PodPeers:
    """The other pods of a group; this class stands for a group of one pod."""

    stop_requested = False
    """Whether a peer was requested to stop, so that all pods must stop."""
    lost: str | None = None
    """Why the group is broken, a sentence."""
    result: Termination | None = None
    """The run's result, sent by pod 0."""

    def __init__(self, node: Node) -> None:
        self.node = node

    @property
    def poll_seconds(self) -> float | None:
        """Longest time between two calls of `poll`; None if no call is needed."""
        return None

    @property
    def awaits_result(self) -> bool:
        """Whether this pod, once its processes have finished training, must wait for the run's result."""
        return False

    def channels(self) -> Sequence[ControlChannel]:
        """Return the open control channels."""
        return ()

    def poll(self) -> None:
        """Process the messages of the peers and send heartbeats."""

    def request_stop(self) -> None:
        """Request the peers to stop."""

    def announce_trained(self) -> None:
        """Announce that this pod's processes have finished training; pod 0 exports without them."""

    def announce_exit(self, termination: Termination) -> None:
        """Announce this pod's termination."""


class ConnectedPodPeers(PodPeers):
    """Peers over control channels: pod 0 is connected to all other pods, every other pod to pod 0.

    Args:
        node: This pod, with the address and port of the rendezvous of the processes.
        channels: Control channels by the index of the peer.
        find_result: Finds the result of a finished run once pod 0 is gone.
    """

    def __init__(self, node: Node, channels: Mapping[int, ControlChannel], find_result: FindResult) -> None:
        super().__init__(node)
        self._channels = channels
        self._find_result = find_result
        self._done: set[int] = set()
        """Peers that have finished training or announced their exit."""
        self._gone: set[int] = set()
        """Peers whose channel has ended."""

    @property
    def poll_seconds(self) -> float:
        """Half a heartbeat interval."""
        return HEARTBEAT_SECONDS / 2

    @property
    def awaits_result(self) -> bool:
        """Whether pod 0 has neither sent the result nor been lost."""
        return self.node.index > 0 and self.result is None and self.lost is None

    def channels(self) -> Sequence[ControlChannel]:
        """Return the channels that have not ended."""
        return [channel for channel in self._channels.values() if not channel.ended]

    def poll(self) -> None:
        """Process all received messages before a peer is considered lost."""
        for index, channel in self._channels.items():
            if index in self._gone:
                continue
            for message in channel.receive():
                self._handle(index, message)
            channel.heartbeat(time.monotonic())
            if channel.ended:
                self._gone.add(index)
                if index not in self._done:
                    self._handle_lost_peer(index)

    def request_stop(self) -> None:
        """Request the peers to stop, once."""
        if not self.stop_requested:
            self.stop_requested = True
            self._broadcast(Message(kind="stop"))

    def announce_trained(self) -> None:
        """Announce that this pod's processes have finished training."""
        self._broadcast(Message(kind="trained"))

    def announce_exit(self, termination: Termination) -> None:
        """Announce this pod's termination and wait for the peers to close: closing at once may drop unread data."""
        self._broadcast(Message(kind="exit", termination=termination))
        for channel in self.channels():
            channel.shutdown_write()
        deadline = time.monotonic() + _DRAIN_SECONDS
        while (left := deadline - time.monotonic()) > 0 and (open_channels := self.channels()):
            select.select(open_channels, [], [], left)
            for channel in open_channels:
                channel.receive()
        for channel in self._channels.values():
            channel.close()

    def _handle(self, index: int, message: Message) -> None:
        if message.kind == "stop":
            self.request_stop()
        elif message.kind == "trained":
            self._done.add(index)
        elif message.kind == "lost":
            self._break_group(message.text)
        elif message.kind == "exit" and message.termination is not None and index not in self._done:
            self._done.add(index)
            self._handle_exit(index, message.termination)

    def _handle_exit(self, index: int, termination: Termination) -> None:
        if termination.outcome is Outcome.INTERRUPTED:
            self.request_stop()
        elif termination.outcome is Outcome.FAILED:
            cause = termination.message[:_MAX_CAUSE_LENGTH]
            self._break_group(f"Pod {index} of {self.node.count} ended with {termination.reason}: {cause}")
        if index == 0:
            self.result = termination

    def _handle_lost_peer(self, index: int) -> None:
        """Break the group, unless the peer is pod 0 and the run has finished."""
        if index == 0 and (result := self._find_result()) is not None:
            self.result = result
        else:
            self._break_group(f"Pod {index} of {self.node.count} was lost: its launcher closed the connection or died.")

    def _break_group(self, why: str) -> None:
        if self.lost is None:
            self.lost = why
            self._broadcast(Message(kind="lost", text=why))

    def _broadcast(self, message: Message) -> None:
        for channel in self.channels():
            channel.send(message)
