"""metrics.jsonl: one JSON line per log step and evaluation, continuous over all attempts of a run."""

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
    """Writer of the metrics of a run."""

    @property
    def length(self) -> int:
        """Bytes written; recorded in each checkpoint."""

    def begin(self, length: int) -> None:
        """Continue after the first `length` bytes of the run's metrics."""

    def append(self, *, step: int, time: str, metrics: dict[str, float]) -> None:
        """Write one line."""

    def sync(self) -> None:
        """Fsync what was written; thread-safe."""

    def close(self) -> None:
        """Stop writing."""


class MetricsLog:
    """The run's metrics by step.

    A checkpoint records the length of the file. An attempt writes a new file that starts with the lines up to the
    checkpoint it resumes from, and renames it over the old one. A stale trainer then writes to a deleted file. The
    event file for TensorBoard has the same lines.
    """

    def __init__(self, path: Path, staging: StagingDirectory) -> None:
        self._path = path
        self._staging = staging
        self._events = EventFile(path.parent, staging)
        self._file: io.FileIO | None = None

    def begin(self, length: int) -> None:
        """Continue after the first `length` bytes of the run's metrics.

        Raises:
            SupersededError: A newer trainer owns the run directory; its metrics are unchanged.
        """
        kept = self._path.read_bytes()[:length] if length else b""
        temporary = self._staging.path(self._path.name)
        self._file = self._staging.create(temporary)
        write_all(self._file, kept)
        os.fsync(self._file.fileno())
        self._staging.publish(temporary, self._path)
        self._events.begin(_lines_of(kept))

    def append(self, *, step: int, time: str, metrics: dict[str, float]) -> None:
        """Write one line, unbuffered."""
        line = {"step": step, "time": time, **metrics}
        write_all(self._open_file(), json.dumps(line, allow_nan=False).encode() + b"\n")
        self._events.append(line)

    @property
    def length(self) -> int:
        """Length of the file in bytes."""
        return self._open_file().tell()

    def sync(self) -> None:
        """Fsync what was written; thread-safe."""
        os.fsync(self._open_file().fileno())

    def close(self) -> None:
        """Close both files."""
        self._events.close()
        if self._file is not None:
            self._file.close()

    def _open_file(self) -> io.FileIO:
        assert self._file is not None, "begin() must be called first"
        return self._file


def _lines_of(data: bytes) -> Iterator[dict[str, Any]]:
    """Yield the lines of a file, without corrupt ones."""
    for line in data.splitlines():
        with suppress(ValueError):
            yield json.loads(line)
