"""Turns the chosen checkpoint into the run's deliverable, wholly or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

from trainyard_crds.report import ExportStatus
from trainyard_trainer.checkpoint.files import Files, storage_errors
from trainyard_trainer.checkpoint.manifest import FileEntry, describe_files
from trainyard_trainer.checkpoint.workspace import Workspace
from trainyard_trainer.engine.task import Loaded, Task

EXPORTS = "exports"


def export_model(
    *,
    task: Task,
    loaded: Loaded,
    weights: Path,
    run_directory: Path,
    run_uri: str,
    files: Files,
    workspace: Workspace,
) -> ExportStatus:
    """Make `exports/<format>/` from a checkpoint's weights.

    Raises:
        StorageError: The volume is full, read-only or broken.
        SupersededError: A newer trainer owns the run directory; its export is left alone.
    """
    exports = run_directory / EXPORTS
    temporary = workspace.path("export")
    with storage_errors(run_directory):
        exports.mkdir(exist_ok=True)
        temporary.mkdir()
        name = task.export(loaded, weights, temporary)
        files.publish(temporary)
        target = exports / name
        if target.exists():  # of an attempt that ended before it could write the result
            workspace.discard(target)
        workspace.publish(temporary, target)
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
