"""Clocks that tests set."""


class FakeClock:
    """A clock that only its test moves."""

    def __init__(self) -> None:
        self.time = 1000.0

    def monotonic(self) -> float:
        return self.time

    def now(self) -> str:
        return "2026-01-02T03:04:05.000Z"

    def pass_seconds(self, seconds: float) -> None:
        self.time += seconds
