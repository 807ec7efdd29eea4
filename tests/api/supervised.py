"""Supervision of operator processes: a process that exits because its Lease expired is restarted, as in a pod."""

from __future__ import annotations

import threading
import time
import weakref
from abc import ABC, abstractmethod

_LEASE_LOST = "another operator may lead now"


class SupervisedProcess(ABC):
    """An operator process that `gateway_support.until` restarts while it is supervised.

    Attributes:
        restarts: Unix times of the restarts.
    """

    all: weakref.WeakSet[SupervisedProcess] = weakref.WeakSet()

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.restarts: list[float] = []

    @property
    def lost(self) -> int:
        """How often a process exited because its Lease expired."""
        return sum(line.startswith("trainyard-operator: ") and _LEASE_LOST in line for line in self.log().splitlines())

    def supervise(self) -> None:
        """Start to supervise the process."""
        self._lost_before = self.lost
        SupervisedProcess.all.add(self)

    def unsupervise(self) -> None:
        """Stop to supervise the process, which may exit from now on."""
        SupervisedProcess.all.discard(self)

    def restart_if_lease_lost(self) -> None:
        """Restart the process if it lost its Lease; a process that exited for another reason is not restarted."""
        with self._lock:
            if self in SupervisedProcess.all and not self.is_running() and self.lost > self._lost_before:
                self.restarts.append(time.time())
                self.start()

    @staticmethod
    def restart_all_lost() -> None:
        """Restart each supervised process that lost its Lease."""
        for operator in tuple(SupervisedProcess.all):
            operator.restart_if_lease_lost()

    def has_failed(self) -> bool:
        """Return whether the process exited for another reason than its Lease."""
        return not self.is_running() and self.lost == self._lost_before

    @abstractmethod
    def is_running(self) -> bool:
        """Return whether the process is running."""

    @abstractmethod
    def start(self) -> None:
        """Start a process and supervise it."""

    @abstractmethod
    def log(self) -> str:
        """Return the complete output of all its processes."""
