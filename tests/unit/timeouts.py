"""How long tests wait for what happens."""

import time
from collections.abc import Callable

TIMEOUT = 300.0
"""Seconds that a test waits for what happens much sooner, however slow and busy the machine is."""


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.02)
