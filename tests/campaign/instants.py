"""The instants of a trainer's way: before and after each call by which it reads or changes the run directory."""

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
"""The threads of a trainer: the one that makes the steps, and the one that writes checkpoints."""


@dataclass(frozen=True)
class Instant:
    """One instant of one thread.

    Each thread passes the same instants in every run; where the other one is meanwhile depends on the machine, unless
    `lead` says it.
    """

    thread: str
    number: int
    """From 0."""
    lead: int | None = None
    """Of the writer's instants: the writer stays there until so many steps were made beyond the checkpoint it writes,
    or until the steps wait for it."""

    def __str__(self) -> str:
        behind = "" if self.lead is None else f", {self.lead} steps behind"
        return f"{self.number} of the {self.thread}{behind}"


def current_thread() -> str:
    """Which of the two this is."""
    return STEPS if threading.current_thread() is threading.main_thread() else WRITER


@contextmanager
def every_instant(tick: Callable[[str], None]) -> Iterator[None]:
    """Let `tick` run at each instant inside; it is told which."""

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
    """Run `action` at the instant of that number (from 0); yields a list that is empty when there are not so many."""
    ticks = count()
    happened: list[int] = []

    def tick(_instant: str) -> None:
        if not happened and next(ticks) == number:
            happened.append(number)
            action()

    with every_instant(tick):
        yield happened
