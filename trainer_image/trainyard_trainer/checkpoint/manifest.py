"""The manifest of a checkpoint: written last, it lists the files and marks the checkpoint as complete."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from trainyard_crds.common import StatusModel
from trainyard_crds.report import CheckpointStatus, Metrics
from trainyard_trainer.checkpoint.files import files_below, sha256_of

MANIFEST = "manifest.json"
WEIGHTS = "weights"
STATE = "state"

_UNSEALED = "0" * 64
_NAME = re.compile(r"step-(\d+)-e(\d+)")


class FileEntry(StatusModel):
    """One file of a checkpoint."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class CursorEntry(StatusModel):
    """Position of the next micro-batch."""

    epoch: int = Field(ge=0)
    index: int = Field(ge=0)


class Manifest(StatusModel):
    """Content and origin of a checkpoint."""

    version: Literal[1] = 1
    step: int = Field(ge=0)
    epoch: float = Field(ge=0)
    owner_epoch: int = Field(ge=1)
    cursor: CursorEntry
    data_fingerprint: str
    config_hash: str
    config: dict[str, Annotated[str, Field()]]
    """Every setting that affects the training: flat name (`optimization.learningRate`) to JSON text."""
    metrics: Metrics = {}
    created_at: str
    files: dict[str, FileEntry]
    seal: str = Field(default=_UNSEALED, pattern="^[0-9a-f]{64}$")
    """SHA-256 of the manifest's bytes with zeros in this field; detects corruption of the manifest itself."""

    @property
    def name(self) -> str:
        """Name of the checkpoint directory."""
        return checkpoint_name(self.step, self.owner_epoch)

    def to_bytes(self) -> bytes:
        """Return the content of the manifest file with its seal."""
        unsealed = self.model_copy(update={"seal": _UNSEALED})
        data = unsealed.model_dump_json(by_alias=True, exclude_none=True, indent=1).encode()
        return _with_seal(data, _UNSEALED, hashlib.sha256(data).hexdigest())


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A published checkpoint."""

    directory: Path
    manifest: Manifest
    digest: str

    @property
    def name(self) -> str:
        """Name of the checkpoint directory."""
        return self.directory.name

    @property
    def order(self) -> tuple[int, int]:
        """Sort key, oldest first."""
        return self.manifest.step, self.manifest.owner_epoch

    @property
    def weights(self) -> Path:
        """Directory of the weights."""
        return self.directory / WEIGHTS

    @property
    def state(self) -> Path:
        """Directory of the optimizer and training state."""
        return self.directory / STATE

    def status(self, *, best: bool, run_uri: str | None) -> CheckpointStatus:
        """Return the checkpoint as reported in the job status."""
        return CheckpointStatus(
            name=self.name,
            step=self.manifest.step,
            epoch=self.manifest.epoch,
            metrics=self.manifest.metrics,
            bytes=sum(entry.bytes for entry in self.manifest.files.values()),
            digest=self.digest,
            uri=None if run_uri is None else f"{run_uri}/checkpoints/{self.name}",
            best=best,
            created_at=self.manifest.created_at,
        )


def checkpoint_name(step: int, owner_epoch: int) -> str:
    """Return the directory name of a checkpoint of a step and an owner epoch."""
    return f"step-{step}-e{owner_epoch}"


def is_checkpoint_name(name: str) -> bool:
    """Return whether a directory name has the form of a checkpoint name."""
    return _NAME.fullmatch(name) is not None


def owner_epoch_of(name: str) -> int:
    """Return the owner epoch in a checkpoint name; 0 for any other name."""
    found = _NAME.fullmatch(name)
    return int(found.group(2)) if found else 0


def describe_files(directory: Path) -> dict[str, FileEntry]:
    """Return size and digest of every file below a directory, by relative path."""
    return {
        path.relative_to(directory).as_posix(): FileEntry(bytes=path.stat().st_size, sha256=sha256_of(path))
        for path in files_below(directory)
    }


def digest_of(data: bytes) -> str:
    """Return the `sha256:` digest of a manifest's bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def read_verified(directory: Path) -> Checkpoint | None:
    """Return the checkpoint in a directory; None if the manifest or a file is missing, corrupt or of another step."""
    try:
        data = (directory / MANIFEST).read_bytes()
    except FileNotFoundError:
        return None
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError:
        return None
    is_manifest_intact = _is_sealed(data, manifest.seal) and manifest.name == directory.name
    if not is_manifest_intact or not all(_matches(directory, path, entry) for path, entry in manifest.files.items()):
        return None
    return Checkpoint(directory=directory, manifest=manifest, digest=digest_of(data))


def _is_sealed(data: bytes, seal: str) -> bool:
    return hashlib.sha256(_with_seal(data, seal, _UNSEALED)).hexdigest() == seal


def _with_seal(data: bytes, old: str, new: str) -> bytes:
    """Return the manifest's bytes with another seal, which is the last field."""
    before, _old, after = data.rpartition(old.encode())
    return before + new.encode() + after


def _matches(directory: Path, relative: str, entry: FileEntry) -> bool:
    posix_path = PurePosixPath(relative)
    if posix_path.is_absolute() or ".." in posix_path.parts:
        return False
    path = directory / relative
    return path.is_file() and path.stat().st_size == entry.bytes and sha256_of(path) == entry.sha256
