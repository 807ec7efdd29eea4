"""metrics.jsonl: one JSON line per log step and evaluation, reading as one run however often it was interrupted."""

from __future__ import annotations

import json
import os
from pathlib import Path


class MetricsLog:
    """The run's metrics over its steps.

    A checkpoint remembers the file's length; a resumed run cuts what was written after it and writes it anew.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def append(self, *, step: int, time: str, metrics: dict[str, float]) -> None:
        """Write one line; readers that follow the file see it at once."""
        line = json.dumps({"step": step, "time": time, **metrics}, allow_nan=False)
        self._file.write(line.encode() + b"\n")

    def durable_length(self) -> int:
        """Bytes of the file, all of them on the disk."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def cut(self, length: int) -> None:
        """Forget what follows the first `length` bytes."""
        self._file.truncate(min(length, self._file.tell()))
        self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
