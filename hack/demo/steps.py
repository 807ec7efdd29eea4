"""Numbered steps in the terminal, each with its duration."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Steps:
    """Prints the title and the duration of each step.

    Attributes:
        total: Number of steps.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._number = 0
        self._started = time.monotonic()

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce the next step, and print its duration when it ends without an error."""
        self._number += 1
        print(f"\n[{self._number}/{self.total}] {title}", flush=True)
        started = time.monotonic()
        yield
        print(f"      done in {duration(time.monotonic() - started)}", flush=True)

    @property
    def elapsed(self) -> str:
        """Duration since the first step."""
        return duration(time.monotonic() - self._started)


def duration(seconds: float) -> str:
    """Format a duration: `42 s`, `3 min 5 s`."""
    return f"{int(seconds // 60)} min {int(seconds % 60)} s" if seconds >= 60 else f"{seconds:.0f} s"
