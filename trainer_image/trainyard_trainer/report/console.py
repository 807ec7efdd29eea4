"""Console output: a progress bar on a terminal, one JSON line per log step in `kubectl logs`."""

from __future__ import annotations

import json
from typing import Protocol, TextIO

from tqdm import tqdm


class Console(Protocol):
    """Shows the progress of a run."""

    def begin(self, *, step: int, total_steps: int) -> None:
        """Start to show progress from a step on."""

    def step(self, step: int) -> None:
        """Show a finished step."""

    def metrics(self, values: dict[str, float | int | str]) -> None:
        """Show the metrics of a step in this order."""

    def message(self, level: str, kind: str, text: str) -> None:
        """Show an event."""

    def close(self) -> None:
        """Finish the output."""


class JsonLines:
    """Writes one JSON object per line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def begin(self, *, step: int, total_steps: int) -> None:
        """Do nothing."""

    def step(self, step: int) -> None:
        """Do nothing: a step is written with its metrics."""

    def metrics(self, values: dict[str, float | int | str]) -> None:
        """Write the metrics with five significant digits."""
        self._print({name: _short(value) for name, value in values.items()})

    def message(self, level: str, kind: str, text: str) -> None:
        """Write the event."""
        self._print({"level": level, "type": kind, "message": text})

    def close(self) -> None:
        """Do nothing."""

    def _print(self, document: dict[str, object]) -> None:
        print(json.dumps(document, ensure_ascii=False), file=self._stream, flush=True)


class ProgressBar:
    """Progress bar with the latest metrics beside it and messages above it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: tqdm[None] | None = None

    def begin(self, *, step: int, total_steps: int) -> None:
        """Draw the bar."""
        self._bar = tqdm(total=total_steps, initial=step, unit="step", file=self._stream, dynamic_ncols=True)

    def step(self, step: int) -> None:
        """Advance the bar."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def metrics(self, values: dict[str, float | int | str]) -> None:
        """Show the metrics beside the bar, which shows step, percentage and remaining time itself."""
        if self._bar is not None:
            shown_by_bar = ("step", "totalSteps", "epoch", "eta")
            self._bar.set_postfix({name: _short(value) for name, value in values.items() if name not in shown_by_bar})

    def message(self, level: str, kind: str, text: str) -> None:
        """Print the event above the bar."""
        prefix = "" if level == "info" else f"{level}: "
        tqdm.write(f"{prefix}{text}", file=self._stream)

    def close(self) -> None:
        """Stop updating the bar."""
        if self._bar is not None:
            self._bar.close()


def create_console(stream: TextIO) -> Console:
    """Return a progress bar for a terminal, JSON lines otherwise."""
    return ProgressBar(stream) if stream.isatty() else JsonLines(stream)


def _short(value: float | str) -> float | int | str:
    return float(f"{value:.5g}") if isinstance(value, float) else value
