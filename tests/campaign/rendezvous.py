"""Brings the two threads of a trainer to a chosen place: the writer at an instant, the steps some steps further."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_PATIENCE = 300.0
"""Seconds; only a trainer that hangs needs as many."""


class Meeting:
    """Where the thread of the steps stops while the writer is held back.

    Args:
        lead: Steps beyond the checkpoint that is written; None holds nobody back.
    """

    def __init__(self, lead: int | None) -> None:
        self._lead = lead
        self._changed = threading.Condition()
        self._target: int | None = None
        self._step = 0
        self._is_waiting = False

    def step_made(self, step: int) -> None:
        """The thread of the steps made one; it stays here when it has the lead, until the writer goes on."""
        with self._changed:
            self._step = step
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._target is None or step < self._target, _PATIENCE)

    @contextmanager
    def steps_wait(self) -> Iterator[None]:
        """The thread of the steps waits for the writer inside."""
        self._set_waiting(True)
        try:
            yield
        finally:
            self._set_waiting(False)

    @contextmanager
    def held_back(self, written: int) -> Iterator[None]:
        """In the writer: what is inside happens when the steps have their lead or wait.

        Args:
            written: Step of the checkpoint that is written.
        """
        if self._lead is None:
            yield
            return
        with self._changed:
            self._target = target = written + self._lead
            assert self._changed.wait_for(lambda: self._is_waiting or self._step >= target, _PATIENCE)
        yield
        with self._changed:
            self._target = None
            self._changed.notify_all()

    def _set_waiting(self, is_waiting: bool) -> None:
        with self._changed:
            self._is_waiting = is_waiting
            self._changed.notify_all()
