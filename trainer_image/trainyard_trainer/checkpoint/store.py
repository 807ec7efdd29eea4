"""The checkpoint store of a run directory: takeover, saving, retention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainyard_crds.report import CheckpointStatus
from trainyard_trainer.checkpoint.fencing import OwnerRecord, Ownership, belongs_to_run, claim_ownership, newest_owner
from trainyard_trainer.checkpoint.files import Files, storage_errors
from trainyard_trainer.checkpoint.index import index_document
from trainyard_trainer.checkpoint.manifest import (
    MANIFEST,
    STATE,
    WEIGHTS,
    Checkpoint,
    CursorEntry,
    Manifest,
    checkpoint_name,
    describe_files,
    digest_of,
    is_checkpoint_name,
    owner_epoch_of,
    read_verified,
)
from trainyard_trainer.checkpoint.retention import best_of, surplus
from trainyard_trainer.checkpoint.staging import StagingDirectory, open_staging, superseded_if_gone
from trainyard_trainer.errors import ConfigurationError, StorageError
from trainyard_trainer.objective import Objective

CHECKPOINTS = "checkpoints"
OWNERS = "owner"
CACHE = "cache"
"""Results that a later attempt would have to compute again; useless once the run has finished."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """Manifest of a checkpoint to be saved, without the files."""

    step: int
    epoch: float
    cursor: CursorEntry
    data_fingerprint: str
    config_hash: str
    config: dict[str, str]
    metrics: dict[str, float]
    created_at: str


class CheckpointStore:
    """Checkpoints of a run directory that this trainer owns."""

    def __init__(
        self,
        *,
        run_directory: Path,
        files: Files,
        ownership: Ownership,
        staging: StagingDirectory,
        checkpoints: list[Checkpoint],
        keep: int,
        run_uri: str | None,
        objective: Objective,
    ) -> None:
        self._run_directory = run_directory
        self._directory = run_directory / CHECKPOINTS
        self._files = files
        self._ownership = ownership
        self.staging = staging
        self._checkpoints = checkpoints
        self._keep = keep
        self._run_uri = run_uri
        self._objective = objective

    @property
    def owner_epoch(self) -> int:
        """Owner epoch of this trainer."""
        return self._ownership.epoch

    @property
    def newest(self) -> Checkpoint | None:
        """The checkpoint to resume from."""
        return self._checkpoints[-1] if self._checkpoints else None

    @property
    def best(self) -> Checkpoint | None:
        """The checkpoint with the best evaluation metric."""
        return best_of(self._checkpoints, self._objective)

    def statuses(self) -> list[CheckpointStatus]:
        """Return the valid checkpoints, oldest first."""
        best = self.best
        return [one.status(best=one is best, run_uri=self._run_uri) for one in self._checkpoints]

    def check_ownership(self) -> None:
        """Verify that this trainer still owns the run directory.

        Raises:
            SupersededError: A newer trainer owns it.
        """
        self._ownership.check()

    def save(self, draft: Draft, write: Callable[[Path, Path], None]) -> Checkpoint:
        """Publish a checkpoint, then remove those beyond the retention limit.

        Args:
            draft: The manifest without the files.
            write: Writes the weights into its first directory and the training state into its second.

        Raises:
            StorageError: The volume is full, read-only or failing; the older checkpoints are untouched.
            SupersededError: A newer trainer owns the run directory; nothing was published.
        """
        self._ownership.check()
        temporary = self.staging.path(checkpoint_name(draft.step, self.owner_epoch))
        try:
            with storage_errors(self._run_directory), superseded_if_gone(self._ownership):
                checkpoint = self._commit(draft, temporary, write)
        except StorageError:
            # On a full volume, free the space of the incomplete checkpoint.
            self._files.remove_tree(temporary)
            raise
        self._checkpoints.append(checkpoint)
        with storage_errors(self._run_directory):
            self._remove_surplus()
            self._write_index()
        return checkpoint

    def _commit(self, draft: Draft, temporary: Path, write: Callable[[Path, Path], None]) -> Checkpoint:
        (temporary / WEIGHTS).mkdir(parents=True)
        (temporary / STATE).mkdir()
        write(temporary / WEIGHTS, temporary / STATE)
        self._files.fsync_tree(temporary)
        manifest = Manifest(**vars(draft), owner_epoch=self.owner_epoch, files=describe_files(temporary))
        data = manifest.to_bytes()
        self._files.write(temporary / MANIFEST, data)
        self._files.fsync(temporary)
        final = self._directory / temporary.name
        self.staging.publish(temporary, final)
        return Checkpoint(directory=final, manifest=manifest, digest=digest_of(data))

    def _remove_surplus(self) -> None:
        for checkpoint in surplus(self._checkpoints, self._keep, self._objective):
            self.staging.discard(checkpoint.directory)
            self._checkpoints.remove(checkpoint)

    def remove_stale(self) -> list[str]:
        """Remove checkpoints of older owners that are corrupt or were published after the takeover.

        Returns:
            Their names.
        """
        valid = {one.name for one in self._checkpoints}
        stale = [
            path
            for path in self._directory.iterdir()
            if path.name not in valid and 0 < owner_epoch_of(path.name) < self.owner_epoch
        ]
        for path in stale:
            self.staging.discard(path)
        return sorted(path.name for path in stale)

    def _write_index(self) -> None:
        self.staging.replace(self._directory / "index.json", index_document(self._checkpoints, self._objective))

    def close(self) -> None:
        """Remove the staging directory."""
        self.staging.close()


def open_store(
    run_directory: Path,
    *,
    files: Files,
    keep: int,
    run_uri: str | None,
    pod_uid: str | None,
    now: str,
    objective: Objective,
) -> CheckpointStore:
    """Take over a run directory: claim ownership, fence older owners, verify and inherit the checkpoints.

    Raises:
        ConfigurationError: The path of the run directory is not a directory.
        StorageError: The volume is full, read-only or failing.
        SupersededError: A newer trainer took over at the same time.
    """
    directory, owners = run_directory / CHECKPOINTS, run_directory / OWNERS
    with storage_errors(run_directory):
        _make_directories(run_directory, directory, owners)
        newest_epoch = max((owner_epoch_of(name) for name in _names(directory)), default=0)
        ownership = claim_ownership(owners, files=files, newest_epoch=newest_epoch, pod_uid=pod_uid, created_at=now)
        with superseded_if_gone(ownership):
            staging = open_staging(directory, files=files, ownership=ownership)
            checkpoints = _valid_checkpoints(directory, newest_owner(owners))
        staging.replace(ownership.path, ownership.record_with_inherited(one.name for one in checkpoints))
        staging.replace(directory / "index.json", index_document(checkpoints, objective))
    return CheckpointStore(
        run_directory=run_directory,
        files=files,
        ownership=ownership,
        staging=staging,
        checkpoints=checkpoints,
        keep=keep,
        run_uri=run_uri,
        objective=objective,
    )


def _make_directories(run_directory: Path, *directories: Path) -> None:
    try:
        for directory in directories:
            directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigurationError(
            f"runDirectory {run_directory} cannot be used: {error.filename} is not a directory.", "Name a directory."
        ) from error


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if is_checkpoint_name(path.name)}


def names_of_run(directory: Path, owner: OwnerRecord | None) -> list[str]:
    """Return the names of the checkpoints that the newest owner wrote or inherited, in no order."""
    return [name for name in _names(directory) if belongs_to_run(name, owner_epoch_of(name), owner)]


def _valid_checkpoints(directory: Path, owner: OwnerRecord | None) -> list[Checkpoint]:
    verified = (read_verified(directory / name) for name in names_of_run(directory, owner))
    return sorted((one for one in verified if one is not None), key=lambda one: one.order)
