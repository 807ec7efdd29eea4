"""resolved.json: what only the trainer can resolve, resolved once in the life of a run."""

from __future__ import annotations

import json
from pathlib import Path

from trainyard_trainer.checkpoint.files import storage_errors
from trainyard_trainer.checkpoint.staging import StagingDirectory


class ResolvedFile:
    """Key and value texts that every later start of the run finds again, and all processes of this one.

    Args:
        path: The file.
        staging: Where it is written; None in a process that does not own the run directory and puts nothing.
    """

    def __init__(self, path: Path, staging: StagingDirectory | None) -> None:
        self._path = path
        self._staging = staging
        self.values = self._read()
        """What is known; other processes may be told of it sooner than they can read it."""

    def get(self, key: str) -> str | None:
        """The value of an earlier start of this run, or None."""
        return self.values.get(key)

    def put(self, key: str, value: str) -> None:
        """Remember a value for every later start of this run."""
        self.values[key] = value
        if self._staging is not None:
            with storage_errors(self._path.parent):
                self._staging.replace(self._path, json.dumps(self.values, indent=1).encode())

    def _read(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self._path.read_text(encoding="utf-8")) if self._path.exists() else {}
        return found
