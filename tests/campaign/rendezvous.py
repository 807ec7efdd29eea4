"""Rendezvous of the two threads of a trainer: the writer at an instant, training some steps ahead of it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_TIMEOUT_SECONDS = 300.0


class Rendezvous:
    """Pauses the writer at an instant until training is some steps ahead.

    Args:
        lead: Steps ahead of the checkpoint being written; None disables the rendezvous.
    """

    def __init__(self, lead: int | None) -> None:
        self._lead = lead
        self._changed = threading.Condition()
        self._target: int | None = None
        self._step = 0
        self._is_waiting = False

    def step_made(self, step: int) -> None:
        """Record a step of the training thread; block once it has the lead, until the writer continues."""
        with self._changed:
            self._step = step
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._target is None or step < self._target, _TIMEOUT_SECONDS)

    @contextmanager
    def training_waits(self) -> Iterator[None]:
        """Mark that the training thread waits for the writer in this block."""
        self._set_waiting(True)
        try:
            yield
        finally:
            self._set_waiting(False)

    @contextmanager
    def writer_paused(self, written: int) -> Iterator[None]:
        """Run the block in the writer once training has its lead or waits for the writer.

        Args:
            written: Step of the checkpoint being written.
        """
        if self._lead is None:
            yield
            return
        with self._changed:
            self._target = target = written + self._lead
            assert self._changed.wait_for(lambda: self._is_waiting or self._step >= target, _TIMEOUT_SECONDS)
        yield
        with self._changed:
            self._target = None
            self._changed.notify_all()

    def _set_waiting(self, is_waiting: bool) -> None:
        with self._changed:
            self._is_waiting = is_waiting
            self._changed.notify_all()
