"""The manifest of a checkpoint: written last, it makes the checkpoint true and says what must be found in it."""

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
    """The next micro-batch."""

    epoch: int = Field(ge=0)
    index: int = Field(ge=0)


class Manifest(StatusModel):
    """What a checkpoint holds and what it was made from."""

    version: Literal[1] = 1
    step: int = Field(ge=0)
    epoch: float = Field(ge=0)
    owner_epoch: int = Field(ge=1)
    cursor: CursorEntry
    data_fingerprint: str
    config_hash: str
    config: dict[str, Annotated[str, Field()]]
    """Every setting that decides the training, flat (`optimization.learningRate`) -> JSON text."""
    metrics: Metrics = {}
    created_at: str
    files: dict[str, FileEntry]
    seal: str = Field(default=_UNSEALED, pattern="^[0-9a-f]{64}$")
    """SHA-256 of the manifest's own bytes with zeros in this place: a flipped bit in a setting's name is damage too."""

    @property
    def name(self) -> str:
        """Name of the checkpoint's directory."""
        return checkpoint_name(self.step, self.owner_epoch)

    def to_bytes(self) -> bytes:
        """The file's content, sealed."""
        unsealed = self.model_copy(update={"seal": _UNSEALED})
        data = unsealed.model_dump_json(by_alias=True, exclude_none=True, indent=1).encode()
        return _with_seal(data, _UNSEALED, hashlib.sha256(data).hexdigest())


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A committed checkpoint."""

    directory: Path
    manifest: Manifest
    digest: str

    @property
    def name(self) -> str:
        """Name of its directory."""
        return self.directory.name

    @property
    def order(self) -> tuple[int, int]:
        """Sorts oldest first."""
        return self.manifest.step, self.manifest.owner_epoch

    @property
    def weights(self) -> Path:
        """Directory of the weights."""
        return self.directory / WEIGHTS

    @property
    def state(self) -> Path:
        """Directory of the rest of the training state."""
        return self.directory / STATE

    def status(self, *, best: bool, run_uri: str | None) -> CheckpointStatus:
        """As users see it."""
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
    """Directory name: the step it was taken at and the owner that took it."""
    return f"step-{step}-e{owner_epoch}"


def is_checkpoint_name(name: str) -> bool:
    """Whether a directory of that name claims to be a checkpoint."""
    return _NAME.fullmatch(name) is not None


def owner_epoch_of(name: str) -> int:
    """Owner epoch in a checkpoint's name; 0 when it is no checkpoint's name."""
    found = _NAME.fullmatch(name)
    return int(found.group(2)) if found else 0


def describe_files(directory: Path) -> dict[str, FileEntry]:
    """Size and digest of every file below, by its path relative to the directory."""
    return {
        path.relative_to(directory).as_posix(): FileEntry(bytes=path.stat().st_size, sha256=sha256_of(path))
        for path in files_below(directory)
    }


def digest_of(data: bytes) -> str:
    """`sha256:` digest of a manifest's bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def read_verified(directory: Path) -> Checkpoint | None:
    """The checkpoint in a directory, or None when its manifest or a file is missing, damaged or of another step."""
    try:
        data = (directory / MANIFEST).read_bytes()
    except FileNotFoundError:
        return None
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError:
        return None
    if (
        not _is_sealed(data, manifest.seal)
        or manifest.name != directory.name
        or not all(_matches(directory, path, entry) for path, entry in manifest.files.items())
    ):
        return None
    return Checkpoint(directory=directory, manifest=manifest, digest=digest_of(data))


def _is_sealed(data: bytes, seal: str) -> bool:
    return hashlib.sha256(_with_seal(data, seal, _UNSEALED)).hexdigest() == seal


def _with_seal(data: bytes, old: str, new: str) -> bytes:
    """The manifest's bytes with another seal; it is the last thing in them."""
    before, _old, after = data.rpartition(old.encode())
    return before + new.encode() + after


def _matches(directory: Path, relative: str, entry: FileEntry) -> bool:
    if PurePosixPath(relative).is_absolute() or ".." in PurePosixPath(relative).parts:
        return False
    path = directory / relative
    return path.is_file() and path.stat().st_size == entry.bytes and sha256_of(path) == entry.sha256
