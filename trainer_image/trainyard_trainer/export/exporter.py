"""Writes the exports of the chosen checkpoint; each is published complete, and only once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from trainyard_crds.common import StatusModel
from trainyard_crds.exports import Export
from trainyard_crds.report import ExportStatus
from trainyard_trainer.checkpoint.files import Files, storage_errors
from trainyard_trainer.checkpoint.manifest import WEIGHTS, Checkpoint, FileEntry, describe_files
from trainyard_trainer.checkpoint.staging import StagingDirectory
from trainyard_trainer.engine.task import ExportNotes, RunContext
from trainyard_trainer.sources.s3 import Bucket

EXPORTS = "exports"
RECORD = "export.json"
_MESSAGE_LIMIT = 256


class ExportRecord(StatusModel):
    """export.json: what an export was made from and what it holds; the same for the same run."""

    version: Literal[1] = 1
    format: str
    base: str | None = None
    type: str | None = None
    step: int
    weights: str
    """`sha256:` digest over the checkpoint's weights."""
    message: str | None = None
    facts: dict[str, Any] = {}
    files: dict[str, FileEntry]

    @property
    def digest(self) -> str:
        """`sha256:` digest over names and digests of the files."""
        return _digest(self.files)


class Exporter:
    """Makes exports of one checkpoint.

    Args:
        write: Writes an export, given the request, the checkpoint's weights and an empty directory.
        context: The run.
        checkpoint: What is exported.
        run_uri: The run directory as users see it.
        files: Makes it durable.
        staging: Publishes it.
    """

    def __init__(
        self,
        *,
        write: Callable[[Export, Path, Path], ExportNotes],
        context: RunContext,
        checkpoint: Checkpoint,
        run_uri: str,
        files: Files,
        staging: StagingDirectory,
    ) -> None:
        self._write = write
        self._context = context
        self._checkpoint = checkpoint
        self._run_uri = run_uri
        self._files = files
        self._staging = staging

    def export(self, request: Export) -> ExportStatus:
        """Write `exports/<format>/`, unless an earlier start of the run did, and copy it to its destination.

        Raises:
            NotPermittedError: The destination refuses the credentials.
            SourceError: The destination cannot be reached.
            StopRequested: The run is to stop.
            StorageError: The volume is full, read-only or broken.
            SupersededError: A newer trainer owns the run directory; its export is left as it is.
        """
        target = self._context.run_directory / EXPORTS / request.format
        record = self._existing(request, target) or self._write_new(request, target)
        if request.destination is not None:
            self._copy(record, target, request.destination)
        return ExportStatus(
            format=request.format,
            uri=f"{self._run_uri}/{EXPORTS}/{request.format}",
            bytes=sum(entry.bytes for entry in record.files.values()),
            digest=record.digest,
            destination=request.destination,
            message=record.message,
        )

    def _write_new(self, request: Export, target: Path) -> ExportRecord:
        temporary = self._staging.path("export")
        with storage_errors(self._context.run_directory):
            target.parent.mkdir(exist_ok=True)
            temporary.mkdir()
            notes = self._write(request, self._checkpoint.weights, temporary)
            record = self._expected(request).model_copy(
                update={
                    "message": notes.message and notes.message[:_MESSAGE_LIMIT],
                    "facts": dict(notes.facts),
                    "files": describe_files(temporary),
                }
            )
            document = record.model_dump_json(by_alias=True, exclude_none=True, indent=1)
            (temporary / RECORD).write_text(f"{document}\n", encoding="utf-8")
            self._files.fsync_tree(temporary)
            if target.exists():
                self._staging.discard(target)
            self._staging.publish(temporary, target)
        if notes.message:
            self._context.log("Exported", f"Export {request.format}: {notes.message}")
        return record

    def _existing(self, request: Export, target: Path) -> ExportRecord | None:
        """Return the record of a complete export of this checkpoint and request; None when there is none."""
        try:
            record = ExportRecord.model_validate_json((target / RECORD).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        found = {name: entry for name, entry in describe_files(target).items() if name != RECORD}
        expected = self._expected(request).model_copy(
            update={"message": record.message, "facts": record.facts, "files": found}
        )
        return record if record == expected else None

    def _expected(self, request: Export) -> ExportRecord:
        prefix = f"{WEIGHTS}/"
        weights = {name: entry for name, entry in self._checkpoint.manifest.files.items() if name.startswith(prefix)}
        return ExportRecord(
            format=request.format,
            base=request.base,
            type=request.type,
            step=self._checkpoint.manifest.step,
            weights=_digest(weights),
            files={},
        )

    def _copy(self, record: ExportRecord, directory: Path, destination: str) -> None:
        """Copy an export to object storage, its record last: a record there means a complete copy."""
        bucket = Bucket.open(destination, self._context.config.s3)
        known = {name: entry.sha256 for name, entry in record.files.items()}
        bucket.upload(directory, [*sorted(known), RECORD], known, self._context.progress, self._context.stop.check)
        self._context.log("ExportCopied", f"Copied the export {record.format} to {destination}.")


def _digest(entries: Mapping[str, FileEntry]) -> str:
    lines = "".join(f"{entry.sha256}  {path}\n" for path, entry in sorted(entries.items()))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
