"""The launcher's view of the other pods while its processes run; `PodPeers` itself stands for a single pod."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Mapping, Sequence

from trainyard_crds.report import Outcome, Termination
from trainyard_trainer.group.control_channel import HEARTBEAT_SECONDS, ControlChannel, Message
from trainyard_trainer.group.membership import Node

_GOODBYE_SECONDS = 5.0
_LONGEST_CAUSE = 600

FindResult = Callable[[], Termination | None]
"""The result of the run, where it has finished."""


class PodPeers:
    """The pods of a group, as seen by one of them: the only one."""

    stop_asked = False
    """Whether one of the others was asked to stop, and all therefore are to."""
    lost: str | None = None
    """Why the group is broken, in a sentence."""
    result: Termination | None = None
    """The run's result, which the first pod tells the others."""

    def __init__(self, node: Node) -> None:
        self.node = node

    @property
    def seconds(self) -> float | None:
        """How long a launcher may sleep, unless one of `files` can be read; None for ever."""
        return None

    @property
    def is_waiting(self) -> bool:
        """Whether this pod, once all its processes have done their part, has to wait for the run's result."""
        return False

    def files(self) -> Sequence[ControlChannel]:
        """What can be read when one of the others says something."""
        return ()

    def attend(self) -> None:
        """Take note of what the others said, and let them hear from this one."""

    def ask_to_stop(self) -> None:
        """Tell the others that all are to stop."""

    def trained(self) -> None:
        """Tell the others that nobody here is needed any more: the first pod exports alone."""

    def leave(self, word: Termination) -> None:
        """Tell the others how this pod ends."""


class ConnectedPodPeers(PodPeers):
    """One of several. The first one hears of all others, the others of the first one.

    Args:
        node: Which one, and where the processes of all meet.
        links: The first pod's to the others, or another one's to the first, by their numbers.
        find_result: Where the first pod is gone, whether it had finished.
    """

    def __init__(self, node: Node, links: Mapping[int, ControlChannel], find_result: FindResult) -> None:
        super().__init__(node)
        self._links = links
        self._find_result = find_result
        self._done: set[int] = set()
        """Those who are not needed any more."""
        self._gone: set[int] = set()
        """Those from whom nothing more comes."""

    @property
    def seconds(self) -> float:
        """Until the next beat is due, at most."""
        return HEARTBEAT_SECONDS / 2

    @property
    def is_waiting(self) -> bool:
        """The first pod tells the result, or is lost."""
        return self.node.index > 0 and self.result is None and self.lost is None

    def files(self) -> Sequence[ControlChannel]:
        """Of those who are there."""
        return [link for link in self._links.values() if not link.ended]

    def attend(self) -> None:
        """Read everything before anybody is missed."""
        for index, link in self._links.items():
            if index in self._gone:
                continue
            for message in link.receive():
                self._take(index, message)
            link.beat(time.monotonic())
            if link.ended:
                self._gone.add(index)
                if index not in self._done:
                    self._miss(index)

    def ask_to_stop(self) -> None:
        """Once."""
        if not self.stop_asked:
            self.stop_asked = True
            self._tell(Message(kind="stop"))

    def trained(self) -> None:
        """Once all processes of this pod have ended as they should."""
        self._tell(Message(kind="trained"))

    def leave(self, word: Termination) -> None:
        """Say it, and wait until the others have heard it: what is unread at a close may be lost on the way."""
        self._tell(Message(kind="done", word=word))
        for link in self.files():
            link.finish()
        deadline = time.monotonic() + _GOODBYE_SECONDS
        while (left := deadline - time.monotonic()) > 0 and (there := self.files()):
            select.select(there, [], [], left)
            for link in there:
                link.receive()
        for link in self._links.values():
            link.close()

    def _take(self, index: int, message: Message) -> None:
        if message.kind == "stop":
            self.ask_to_stop()
        elif message.kind == "trained":
            self._done.add(index)
        elif message.kind == "lost":
            self._lose(message.text)
        elif message.kind == "done" and message.word is not None and index not in self._done:
            self._done.add(index)
            self._hear(index, message.word)

    def _hear(self, index: int, word: Termination) -> None:
        """How another pod ends."""
        if word.outcome is Outcome.INTERRUPTED:
            self.ask_to_stop()
        elif word.outcome is Outcome.FAILED:
            self._lose(f"Pod {index} of {self.node.count} ended with {word.reason}: {word.message[:_LONGEST_CAUSE]}")
        if index == 0:
            self.result = word

    def _miss(self, index: int) -> None:
        """One is gone without a word: after its end if that is the first pod and there is a result."""
        if index == 0 and (result := self._find_result()) is not None:
            self.result = result
        else:
            self._lose(f"Pod {index} of {self.node.count} was lost: it ended without a word, or cannot be reached.")

    def _lose(self, why: str) -> None:
        if self.lost is None:
            self.lost = why
            self._tell(Message(kind="lost", text=why))

    def _tell(self, message: Message) -> None:
        for link in self.files():
            link.send(message)
