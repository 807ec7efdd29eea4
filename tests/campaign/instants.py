"""Instants of a trainer: before and after each call that reads or changes the run directory."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from trainyard_trainer.checkpoint.fencing import Ownership
from trainyard_trainer.checkpoint.files import Files

CALLS = [
    *((Files, name) for name in ("fsync", "rename", "write", "create", "fsync_tree", "remove_tree")),
    *((Path, name) for name in ("rename", "mkdir", "unlink", "iterdir", "read_bytes")),
    (Ownership, "check"),
]


STEPS, WRITER = "steps", "writer"
"""Threads of a trainer: the training thread and the checkpoint writer."""


@dataclass(frozen=True)
class Instant:
    """One instant of one thread.

    Each thread passes the same instants in every run; the position of the other thread varies unless `lead` sets it.
    """

    thread: str
    number: int
    """From 0."""
    lead: int | None = None
    """For the writer: wait at the instant until training is so many steps ahead of the checkpoint being written, or
    waits for the writer."""

    def __str__(self) -> str:
        behind = "" if self.lead is None else f", {self.lead} steps behind"
        return f"{self.number} of the {self.thread}{behind}"


def current_thread() -> str:
    """Return the kind of the current thread."""
    return STEPS if threading.current_thread() is threading.main_thread() else WRITER


@contextmanager
def every_instant(tick: Callable[[str], None]) -> Iterator[None]:
    """Call `tick` with the description of each instant in the block."""

    def wrap(owner: type, name: str) -> Callable[..., object]:
        original = getattr(owner, name)

        def wrapped(*args: object, **options: object) -> object:
            tick(f"before {owner.__name__}.{name}")
            result: object = original(*args, **options)
            tick(f"after {owner.__name__}.{name}")
            return result

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in CALLS:
            patch.setattr(owner, name, wrap(owner, name))
        yield


@contextmanager
def paused(number: int, action: Callable[[], None]) -> Iterator[list[int]]:
    """Run `action` at the instant with a number (from 0); yields a list that stays empty if it is not reached."""
    ticks = count()
    reached: list[int] = []

    def tick(_instant: str) -> None:
        if not reached and next(ticks) == number:
            reached.append(number)
            action()

    with every_instant(tick):
        yield reached
