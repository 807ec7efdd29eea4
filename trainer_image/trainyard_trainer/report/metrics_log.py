"""metrics.jsonl: one JSON line per log step and evaluation, reading as one run however often it was interrupted."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

from trainyard_trainer.checkpoint.workspace import Workspace


class MetricsLog:
    """The run's metrics over its steps.

    A checkpoint remembers the file's length. A start goes on in a file of its own, which begins with what its
    checkpoint had seen and takes the place of the old one: a trainer that was cut off writes into a file that nobody
    sees any more.
    """

    def __init__(self, path: Path, workspace: Workspace) -> None:
        self._path = path
        self._workspace = workspace
        self._file: io.FileIO | None = None

    def begin(self, length: int) -> None:
        """Go on after the first `length` bytes of the run's metrics.

        Raises:
            SupersededError: A newer trainer owns the run directory; its metrics are left alone.
        """
        kept = self._path.read_bytes()[:length] if length else b""
        temporary = self._workspace.path(self._path.name)
        self._file = self._workspace.create(temporary)
        _write(self._file, kept)
        os.fsync(self._file.fileno())
        self._workspace.publish(temporary, self._path)

    def append(self, *, step: int, time: str, metrics: dict[str, float]) -> None:
        """Write one line; readers that follow the file see it at once."""
        line = json.dumps({"step": step, "time": time, **metrics}, allow_nan=False)
        _write(self._open_file(), line.encode() + b"\n")

    @property
    def length(self) -> int:
        """Bytes of the file."""
        return self._open_file().tell()

    def sync(self) -> None:
        """Force what was written to the disk; another thread may do it."""
        os.fsync(self._open_file().fileno())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _open_file(self) -> io.FileIO:
        assert self._file is not None, "begin() comes first"
        return self._file


def _write(file: io.FileIO, data: bytes) -> None:
    """Write all of it; a volume that fills up takes a part without an error, and refuses the rest."""
    while data:
        data = data[file.write(data) :]
