"""log.jsonl: what happened in the run, one JSON line an event."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

from trainyard_trainer.clock import Clock

Level = str
"""`info`, `warning` or `error`."""


class RunLog:
    """The run's events; safe to use from every thread."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._file = path.open("ab", buffering=0)
        self._clock = clock
        self._lock = threading.Lock()
        self.step = 0
        """The step the run is at; goes into every line."""

    def append(self, *, level: Level, kind: str, message: str) -> None:
        """Write one line; readers that follow the file see it at once. After the end nothing is written."""
        event = {"time": self._clock.now(), "level": level, "type": kind, "step": self.step, "message": message}
        with self._lock:
            if self._file.closed:
                return
            self._file.write(json.dumps(event, ensure_ascii=False).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()


class LibraryHandler(logging.Handler):
    """Keeps what libraries warn of off the console; the same sentence is written once."""

    def __init__(self, run_log: RunLog) -> None:
        super().__init__(level=logging.WARNING)
        self._run_log = run_log
        self._seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record as an event of type `Library`."""
        message = f"{record.name}: {record.getMessage().strip()}"
        if message not in self._seen:
            self._seen.add(message)
            level = "error" if record.levelno >= logging.ERROR else "warning"
            self._run_log.append(level=level, kind="Library", message=message)
