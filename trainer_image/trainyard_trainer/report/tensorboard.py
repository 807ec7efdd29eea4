"""tensorboard/: the lines of metrics.jsonl as an event file.

metrics.jsonl is the source. Each attempt writes a new event file from the lines up to its checkpoint and truncates the
older files, so that a new reader sees each step once. The file starts with a session start, at which a reader that has
read the older files purges their steps. The older files are not removed: a reader in the middle of a removed file would
never continue with the next one.
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
"""First version in which readers purge at session starts."""


class EventFile:
    """The event file of this attempt.

    Args:
        run_directory: The run directory.
        staging: Staging directory in which the file is created. Its owner epoch is part of the file name because
            readers process the files in the order of their names.
    """

    def __init__(self, run_directory: Path, staging: StagingDirectory) -> None:
        self._directory = run_directory / DIRECTORY
        self._staging = staging
        self._name = f"{_NAME}.{staging.owner_epoch:010d}.trainyard"
        self._file: io.FileIO | None = None

    def begin(self, lines: Iterable[dict[str, Any]]) -> None:
        """Start the file with the lines of metrics.jsonl of earlier attempts.

        Raises:
            SupersededError: A newer trainer owns the run directory; its files are unchanged.
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
        """Add a line: `step`, `time` (RFC 3339) and one scalar for each other field."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [
            Summary.Value(tag=name, simple_value=value) for name, value in line.items() if name not in ("step", "time")
        ]
        wall_time = datetime.fromisoformat(line["time"]).timestamp()
        assert self._file is not None, "begin() must be called first"
        write_all(self._file, _record(wall_time=wall_time, step=line["step"], summary=Summary(value=scalars)))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _empty_file() -> bytes:
    return _record(file_version=_VERSION)


def _record(**fields: Any) -> bytes:
    """Return an encoded event: a TFRecord with masked CRC-32C."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    record = io.BytesIO()
    RecordWriter(record).write(Event(**fields).SerializeToString())
    return record.getvalue()
