"""resolved.json: revisions and the like, resolved once in the life of a run."""

from __future__ import annotations

import json
from pathlib import Path

from trainyard_trainer.checkpoint.files import storage_errors
from trainyard_trainer.checkpoint.staging import StagingDirectory

RESOLVED_FILE = "resolved.json"


class ResolvedFile:
    """Texts by key, kept for every later start of the run and shared by the processes of this one.

    Args:
        path: The file.
        staging: Writes it; None in a process that does not own the run directory.
    """

    def __init__(self, path: Path, staging: StagingDirectory | None) -> None:
        self._path = path
        self._staging = staging
        self.values = self._read()
        """All values; other processes receive them before they could read the file."""

    def get(self, key: str) -> str | None:
        """Return the value of an earlier start of this run, or None."""
        return self.values.get(key)

    def put(self, key: str, value: str) -> None:
        """Keep a value for every later start of this run."""
        self.values[key] = value
        if self._staging is not None:
            with storage_errors(self._path.parent):
                self._staging.replace(self._path, json.dumps(self.values, indent=1).encode())

    def _read(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self._path.read_text(encoding="utf-8")) if self._path.exists() else {}
        return found
