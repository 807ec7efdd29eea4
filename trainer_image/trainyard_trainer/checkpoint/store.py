"""The checkpoints of a run directory: what counts, committing a new one, removing old ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainyard_crds.report import CheckpointStatus
from trainyard_trainer.checkpoint.fencing import OwnerRecord, Ownership, claim, counts, newest_owner
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
"""What a later start of the run would have to compute again; of no use once the run has finished."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A checkpoint to be: everything of its manifest but the files."""

    step: int
    epoch: float
    cursor: CursorEntry
    data_fingerprint: str
    config_hash: str
    config: dict[str, str]
    metrics: dict[str, float]
    created_at: str


class CheckpointStore:
    """The checkpoints of a run directory that this trainer owns."""

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
        """This trainer's number."""
        return self._ownership.epoch

    @property
    def newest(self) -> Checkpoint | None:
        """The checkpoint to resume from."""
        return self._checkpoints[-1] if self._checkpoints else None

    @property
    def best(self) -> Checkpoint | None:
        """The checkpoint with the best evaluation."""
        return best_of(self._checkpoints, self._objective)

    def statuses(self) -> list[CheckpointStatus]:
        """The checkpoints that count, oldest first."""
        best = self.best
        return [one.status(best=one is best, run_uri=self._run_uri) for one in self._checkpoints]

    def check_ownership(self) -> None:
        """Make sure that nobody took over.

        Raises:
            SupersededError: A newer trainer owns the run directory.
        """
        self._ownership.check()

    def save(self, draft: Draft, write: Callable[[Path, Path], None]) -> Checkpoint:
        """Commit a checkpoint, then remove those that are not kept.

        Args:
            draft: What the manifest says beside the files.
            write: Writes the weights into its first directory and the rest of the state into its second.

        Raises:
            StorageError: The volume is full, read-only or broken; the older checkpoints are untouched.
            SupersededError: A newer trainer owns the run directory; nothing was committed.
        """
        self._ownership.check()
        temporary = self.staging.path(checkpoint_name(draft.step, self.owner_epoch))
        try:
            with storage_errors(self._run_directory), superseded_if_gone(self._ownership):
                checkpoint = self._commit(draft, temporary, write)
        except StorageError:
            # A full volume gets back the room of what could not be finished.
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
        """Remove what older trainers left and does not count (damaged, or committed too late); returns the names."""
        counted = {one.name for one in self._checkpoints}
        foreign = [
            path
            for path in self._directory.iterdir()
            if path.name not in counted and 0 < owner_epoch_of(path.name) < self.owner_epoch
        ]
        for path in foreign:
            self.staging.discard(path)
        return sorted(path.name for path in foreign)

    def _write_index(self) -> None:
        self.staging.replace(self._directory / "index.json", index_document(self._checkpoints, self._objective))

    def close(self) -> None:
        """Leave nothing temporary behind."""
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
    """Take over a run directory: verify what it holds, become its owner, clear what interrupted writes left.

    Raises:
        ConfigurationError: The run directory cannot be a directory.
        StorageError: The volume is full, read-only or broken.
        SupersededError: A newer trainer took over at the same time.
    """
    directory, owners = run_directory / CHECKPOINTS, run_directory / OWNERS
    with storage_errors(run_directory):
        _make_directories(run_directory, directory, owners)
        beyond = max((owner_epoch_of(name) for name in _names(directory)), default=0)
        ownership = claim(owners, files=files, beyond=beyond, pod_uid=pod_uid, created_at=now)
        with superseded_if_gone(ownership):
            staging = open_staging(directory, files=files, ownership=ownership)
            checkpoints = _counted(directory, newest_owner(owners))
        staging.replace(ownership.path, ownership.inheriting(one.name for one in checkpoints))
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


def _counted(directory: Path, owner: OwnerRecord | None) -> list[Checkpoint]:
    names = _names(directory)
    verified = (read_verified(directory / name) for name in names if counts(name, owner_epoch_of(name), owner))
    return sorted((one for one in verified if one is not None), key=lambda one: one.order)
