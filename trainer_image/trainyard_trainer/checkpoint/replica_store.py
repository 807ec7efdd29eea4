"""Read-only view of a run directory's checkpoints in a replica, a process that does not own the directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainyard_crds.report import CheckpointStatus
from trainyard_trainer.checkpoint.manifest import MANIFEST, Checkpoint, Manifest, digest_of
from trainyard_trainer.checkpoint.store import CHECKPOINTS, CheckpointStore


class ReplicaStore:
    """The checkpoint to resume from; writes and removes nothing."""

    staging = None

    def __init__(self, run_directory: Path, description: dict[str, Any]) -> None:
        """Build the view from the output of `describe_store` in the owner."""
        self.owner_epoch: int = description["ownerEpoch"]
        newest = description["newest"]
        self.newest = None if newest is None else _read(run_directory / CHECKPOINTS / newest)
        """The checkpoint to resume from."""
        self.best: Checkpoint | None = None
        """Always None: only the owner exports."""

    def statuses(self) -> list[CheckpointStatus]:
        """Return nothing: only the owner reports."""
        return []

    def check_ownership(self) -> None:
        """Do nothing: the owner checks, and its exit ends the group."""

    def remove_stale(self) -> list[str]:
        """Remove nothing: only the owner does."""
        return []

    def close(self) -> None:
        """Do nothing."""


def describe_store(store: CheckpointStore) -> dict[str, Any]:
    """Return what replicas need to know of the owner's store, as JSON values."""
    newest = store.newest
    return {"ownerEpoch": store.owner_epoch, "newest": newest and newest.name}


def _read(directory: Path) -> Checkpoint:
    """Read a checkpoint that the owner has verified."""
    data = (directory / MANIFEST).read_bytes()
    return Checkpoint(directory=directory, manifest=Manifest.model_validate_json(data), digest=digest_of(data))
