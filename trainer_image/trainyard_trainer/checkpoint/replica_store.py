"""The checkpoints of a run directory, as a process of a group sees them whose first process owns the directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainyard_crds.report import CheckpointStatus
from trainyard_trainer.checkpoint.manifest import MANIFEST, Checkpoint, Manifest, digest_of
from trainyard_trainer.checkpoint.store import CHECKPOINTS, CheckpointStore


class ReplicaStore:
    """What to resume from; nothing is written or removed here."""

    staging = None

    def __init__(self, run_directory: Path, told: dict[str, Any]) -> None:
        """Take what `describe_store` told."""
        self.owner_epoch: int = told["ownerEpoch"]
        newest = told["newest"]
        self.newest = None if newest is None else _read(run_directory / CHECKPOINTS / newest)
        """The checkpoint to resume from."""
        self.best: Checkpoint | None = None
        """The owner exports."""

    def statuses(self) -> list[CheckpointStatus]:
        """The owner reports."""
        return []

    def check_ownership(self) -> None:
        """The owner looks; when it ends, its group does."""

    def remove_stale(self) -> list[str]:
        """The owner removes."""
        return []

    def close(self) -> None:
        """Nothing is open."""


def describe_store(store: CheckpointStore) -> dict[str, Any]:
    """What the other processes of a group must know of the store, as JSON values."""
    newest = store.newest
    return {"ownerEpoch": store.owner_epoch, "newest": newest and newest.name}


def _read(directory: Path) -> Checkpoint:
    """A checkpoint that the owner has just verified."""
    data = (directory / MANIFEST).read_bytes()
    return Checkpoint(directory=directory, manifest=Manifest.model_validate_json(data), digest=digest_of(data))
