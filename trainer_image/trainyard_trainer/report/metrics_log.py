"""metrics.jsonl: one JSON line per log step and evaluation, reading as one run however often it was interrupted."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from trainyard_trainer.checkpoint.files import write_all
from trainyard_trainer.checkpoint.staging import StagingDirectory
from trainyard_trainer.report.tensorboard import EventFile


class Metrics(Protocol):
    """Where the metrics of a run go."""

    @property
    def length(self) -> int:
        """Bytes written; a checkpoint remembers them."""

    def begin(self, length: int) -> None:
        """Go on after the first `length` bytes of the run's metrics."""

    def append(self, *, step: int, time: str, metrics: dict[str, float]) -> None:
        """Write one line."""

    def sync(self) -> None:
        """Force what was written to the disk; another thread may do it."""

    def close(self) -> None:
        """Write nothing any more."""


class MetricsLog:
    """The run's metrics over its steps.

    A checkpoint remembers the file's length. A start goes on in a file of its own, which begins with what its
    checkpoint had seen and takes the place of the old one: a trainer that was cut off writes into a file that nobody
    sees any more. The event file for TensorBoard beside it holds the same lines.
    """

    def __init__(self, path: Path, staging: StagingDirectory) -> None:
        self._path = path
        self._staging = staging
        self._events = EventFile(path.parent, staging)
        self._file: io.FileIO | None = None

    def begin(self, length: int) -> None:
        """Go on after the first `length` bytes of the run's metrics.

        Raises:
            SupersededError: A newer trainer owns the run directory; its metrics are left alone.
        """
        kept = self._path.read_bytes()[:length] if length else b""
        temporary = self._staging.path(self._path.name)
        self._file = self._staging.create(temporary)
        write_all(self._file, kept)
        os.fsync(self._file.fileno())
        self._staging.publish(temporary, self._path)
        self._events.begin(_lines_of(kept))

    def append(self, *, step: int, time: str, metrics: dict[str, float]) -> None:
        """Write one line; readers that follow the file see it at once."""
        line = {"step": step, "time": time, **metrics}
        write_all(self._open_file(), json.dumps(line, allow_nan=False).encode() + b"\n")
        self._events.append(line)

    @property
    def length(self) -> int:
        """Bytes of the file."""
        return self._open_file().tell()

    def sync(self) -> None:
        """Force what was written to the disk; another thread may do it."""
        os.fsync(self._open_file().fileno())

    def close(self) -> None:
        """Close both files."""
        self._events.close()
        if self._file is not None:
            self._file.close()

    def _open_file(self) -> io.FileIO:
        assert self._file is not None, "begin() comes first"
        return self._file


def _lines_of(data: bytes) -> Iterator[dict[str, Any]]:
    """Its lines; those that a volume damaged are left out."""
    for line in data.splitlines():
        with suppress(ValueError):
            yield json.loads(line)
