"""log.jsonl: events of the run, one JSON line each."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

from trainyard_trainer.clock import Clock

Level = str
"""`info`, `warning` or `error`."""


class RunLog:
    """Writer of the run's events; thread-safe."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._file = path.open("ab", buffering=0)
        self._clock = clock
        self._lock = threading.Lock()
        self.step = 0
        """Current step, written to every line."""

    def append(self, *, level: Level, kind: str, message: str) -> None:
        """Write one line, unbuffered; do nothing after `close`."""
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
    """Redirects warnings of libraries to the run log, each distinct message once."""

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
