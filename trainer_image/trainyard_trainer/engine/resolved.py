"""resolved.json: what only the trainer can resolve, resolved once in the life of a run."""

from __future__ import annotations

import json
from pathlib import Path

from trainyard_trainer.checkpoint.files import storage_errors
from trainyard_trainer.checkpoint.workspace import Workspace


class ResolvedFile:
    """Key and value texts that every later start of the run finds again."""

    def __init__(self, path: Path, workspace: Workspace) -> None:
        self._path = path
        self._workspace = workspace
        self._values: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def get(self, key: str) -> str | None:
        """The value of an earlier start of this run, or None."""
        return self._values.get(key)

    def put(self, key: str, value: str) -> None:
        """Remember a value for every later start of this run."""
        self._values[key] = value
        with storage_errors(self._path.parent):
            self._workspace.replace(self._path, json.dumps(self._values, indent=1).encode())
