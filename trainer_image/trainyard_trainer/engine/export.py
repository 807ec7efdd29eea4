"""Turns the chosen checkpoint into the run's deliverable, wholly or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

from trainyard_crds.report import ExportStatus
from trainyard_trainer.checkpoint.files import TEMPORARY_PREFIX, Files, storage_errors
from trainyard_trainer.checkpoint.manifest import FileEntry, describe_files
from trainyard_trainer.engine.task import Loaded, Task

EXPORTS = "exports"


def export_model(
    *, task: Task, loaded: Loaded, weights: Path, run_directory: Path, run_uri: str, files: Files
) -> ExportStatus:
    """Make `exports/<format>/` from a checkpoint's weights.

    Raises:
        StorageError: The volume is full, read-only or broken.
    """
    exports = run_directory / EXPORTS
    temporary = exports / f"{TEMPORARY_PREFIX}export"
    with storage_errors(run_directory):
        exports.mkdir(exist_ok=True)
        files.remove_leftovers(exports)
        temporary.mkdir()
        name = task.export(loaded, weights, temporary)
        files.publish(temporary)
        target = exports / name
        if target.exists():  # of an attempt that ended before it could write the result
            files.remove_tree(target)
        files.rename(temporary, target)
    entries = describe_files(target)
    return ExportStatus(
        format=name,
        uri=f"{run_uri}/{EXPORTS}/{name}",
        bytes=sum(entry.bytes for entry in entries.values()),
        digest=_digest(entries),
    )


def _digest(entries: dict[str, FileEntry]) -> str:
    lines = "".join(f"{entry.sha256}  {path}\n" for path, entry in sorted(entries.items()))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
