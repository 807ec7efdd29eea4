"""Structured logs of operator and gateway: one JSON object per line, with the namespace and name of the job."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

FIELDS = ("namespace", "job", "pod", "reason", "code")
"""Keys of `extra` that appear in the line."""

_about: ContextVar[dict[str, str] | None] = ContextVar("about", default=None)


@contextmanager
def about(namespace: str, job: str) -> Iterator[None]:
    """Add the job's namespace and name to every line logged in the context."""
    token = _about.set({"namespace": namespace, "job": job})
    try:
        yield
    finally:
        _about.reset(token)


class JsonFormatter(logging.Formatter):
    """Formats a record as JSON: time, level, logger, message and the keys of FIELDS."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        line |= _about.get() or {}
        line |= {key: getattr(record, key) for key in FIELDS if hasattr(record, key)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(level: str, *, quiet: Sequence[str] = ()) -> None:
    """Log to standard error.

    Args:
        level: Least severe level that is logged.
        quiet: Loggers whose messages below WARNING are dropped.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in quiet:
        logging.getLogger(name).setLevel(logging.WARNING)
