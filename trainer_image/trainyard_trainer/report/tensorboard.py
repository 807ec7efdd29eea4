"""tensorboard/: the lines of metrics.jsonl as an event file.

metrics.jsonl is the source. A start writes a file of its own from the lines that belong to the run it goes on with,
and empties the older files, so a new reader sees each step once; one that had read them drops what it knows at the
session's start that the file begins with. They are not removed: a reader that is in one would never leave it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from trainyard_trainer.checkpoint.files import write_all
from trainyard_trainer.checkpoint.staging import StagingDirectory

DIRECTORY = "tensorboard"
_NAME = "events.out.tfevents"
_VERSION = "brain.Event:2"
"""The version that makes readers look at session starts."""


class EventFile:
    """The event file of this start.

    Args:
        run_directory: Where the directory of event files is.
        staging: Where this one is written until it is complete. Its owner's number is in the file's name, as readers
            go through the files in the order of their names.
    """

    def __init__(self, run_directory: Path, staging: StagingDirectory) -> None:
        self._directory = run_directory / DIRECTORY
        self._staging = staging
        self._name = f"{_NAME}.{staging.owner_epoch:010d}.trainyard"
        self._file: io.FileIO | None = None

    def begin(self, lines: Iterable[dict[str, Any]]) -> None:
        """Go on after the lines of metrics.jsonl that an earlier start left.

        Raises:
            SupersededError: A newer trainer owns the run directory; its files are left alone.
        """
        from tensorboard.compat.proto.event_pb2 import SessionLog

        self._directory.mkdir(exist_ok=True)
        temporary = self._staging.path(self._name)
        self._file = self._staging.create(temporary)
        write_all(self._file, _empty_file())
        write_all(self._file, _record(session_log=SessionLog(status=SessionLog.START)))
        for line in lines:
            self.append(line)
        os.fsync(self._file.fileno())
        self._staging.publish(temporary, self._directory / self._name)
        for path in self._directory.glob(f"{_NAME}.*"):
            if path.name != self._name and path.stat().st_size > len(_empty_file()):
                self._staging.replace(path, _empty_file())

    def append(self, line: dict[str, Any]) -> None:
        """Add the numbers of a line: `step`, `time` (RFC 3339) and one scalar each for all others."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [
            Summary.Value(tag=name, simple_value=value) for name, value in line.items() if name not in ("step", "time")
        ]
        wall_time = datetime.fromisoformat(line["time"]).timestamp()
        assert self._file is not None, "begin() comes first"
        write_all(self._file, _record(wall_time=wall_time, step=line["step"], summary=Summary(value=scalars)))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _empty_file() -> bytes:
    return _record(file_version=_VERSION)


def _record(**fields: Any) -> bytes:
    """An event as it lies in a file: TFRecord with masked CRC-32C."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    record = io.BytesIO()
    RecordWriter(record).write(Event(**fields).SerializeToString())
    return record.getvalue()
