"""Exports on a claim, as the trainer writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.unit.serving.runs import EXPORT, MODEL, write
from trainyard_trainer.checkpoint.manifest import describe_files
from trainyard_trainer.export.exporter import ExportRecord


def write_export(claim: Path, files: Mapping[str, bytes] = MODEL, path: str = EXPORT) -> str:
    """Write an export and return its digest."""
    directory = claim / path
    write(directory, files)
    record = ExportRecord(format="merged", step=7, weights="sha256:0", files=describe_files(directory))
    (directory / "export.json").write_text(record.model_dump_json(by_alias=True))
    return record.digest
