"""What a person sees: a progress bar on a terminal, one JSON line per log step in `kubectl logs`."""

from __future__ import annotations

import json
from typing import Protocol, TextIO

from tqdm import tqdm


class Console(Protocol):
    """Where progress is shown."""

    def begin(self, *, step: int, total_steps: int) -> None:
        """Training begins, or goes on, at a step."""

    def step(self, step: int) -> None:
        """A step was done."""

    def metrics(self, values: dict[str, float | int | str]) -> None:
        """Metrics of a step, in the order they are to be read."""

    def message(self, level: str, kind: str, text: str) -> None:
        """Something happened."""

    def close(self) -> None:
        """The run is over."""


class JsonLines:
    """One JSON object a line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def begin(self, *, step: int, total_steps: int) -> None:
        """Nothing to show before the first metrics."""

    def step(self, step: int) -> None:
        """Steps show with their metrics only."""

    def metrics(self, values: dict[str, float | int | str]) -> None:
        """Print the metrics, numbers with five significant digits."""
        self._print({name: _short(value) for name, value in values.items()})

    def message(self, level: str, kind: str, text: str) -> None:
        """Print the event."""
        self._print({"level": level, "type": kind, "message": text})

    def close(self) -> None:
        """Nothing is open."""

    def _print(self, document: dict[str, object]) -> None:
        print(json.dumps(document, ensure_ascii=False), file=self._stream, flush=True)


class ProgressBar:
    """A bar with the latest metrics beside it, messages above it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: tqdm[None] | None = None

    def begin(self, *, step: int, total_steps: int) -> None:
        """Draw the bar."""
        self._bar = tqdm(total=total_steps, initial=step, unit="step", file=self._stream, dynamic_ncols=True)

    def step(self, step: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def metrics(self, values: dict[str, float | int | str]) -> None:
        """Show the metrics beside the bar; step, percentage and time left are the bar's own."""
        if self._bar is not None:
            own = ("step", "totalSteps", "epoch", "eta")
            self._bar.set_postfix({name: _short(value) for name, value in values.items() if name not in own})

    def message(self, level: str, kind: str, text: str) -> None:
        """Print the event above the bar."""
        prefix = "" if level == "info" else f"{level}: "
        tqdm.write(f"{prefix}{text}", file=self._stream)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def create_console(stream: TextIO) -> Console:
    """The bar on a terminal, JSON lines elsewhere."""
    return ProgressBar(stream) if stream.isatty() else JsonLines(stream)


def _short(value: float | str) -> float | int | str:
    return float(f"{value:.5g}") if isinstance(value, float) else value
