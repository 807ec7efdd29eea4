"""Operators that end because a busy machine let their Lease run out start again, as a kubelet would let them."""

from __future__ import annotations

import threading
import time
import weakref
from abc import ABC, abstractmethod

_LOST = "another operator may lead now"


class Attended(ABC):
    """An operator's process that `gateway_support.until` looks after from `attend` to `leave`.

    Attributes:
        restarts: Unix seconds at which it was started again.
    """

    all: weakref.WeakSet[Attended] = weakref.WeakSet()

    def __init__(self) -> None:
        self._attention = threading.Lock()
        self.restarts: list[float] = []

    @property
    def lost(self) -> int:
        """How often it ended because its Lease ran out."""
        return sum(line.startswith("trainyard-operator: ") and _LOST in line for line in self.log().splitlines())

    def attend(self) -> None:
        """Look after it from now on."""
        self._known = self.lost
        Attended.all.add(self)

    def leave(self) -> None:
        """Look after it no longer: it is to end, or may."""
        Attended.all.discard(self)

    def look_after(self) -> None:
        """Start it again if it lost its Lease; what ended for another reason stays as it is."""
        with self._attention:
            if self in Attended.all and not self.runs() and self.lost > self._known:
                self.restarts.append(time.time())
                self.start()

    @staticmethod
    def look_after_all() -> None:
        """Look after each that is attended to."""
        for operator in tuple(Attended.all):
            operator.look_after()

    def has_failed(self) -> bool:
        """Whether it ended for another reason."""
        return not self.runs() and self.lost == self._known

    @abstractmethod
    def runs(self) -> bool:
        """Whether the process is there."""

    @abstractmethod
    def start(self) -> None:
        """Start a process, and attend to it."""

    @abstractmethod
    def log(self) -> str:
        """All it ever wrote."""
