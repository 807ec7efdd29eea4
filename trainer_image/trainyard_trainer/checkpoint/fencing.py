"""Ownership of a run directory by owner epoch, a fencing token: the trainer with the highest epoch owns it.

A partitioned trainer may still write when its successor starts, and nothing can stop it. The successor therefore
removes its staging directory (staging.py), and a checkpoint is valid only if the newest owner wrote or inherited it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, ValidationError

from trainyard_crds.common import StatusModel
from trainyard_trainer.checkpoint.files import Files
from trainyard_trainer.errors import SupersededError


class OwnerRecord(StatusModel):
    """One owner of the run directory: a file in `owner/`."""

    epoch: int = Field(ge=1)
    pod_uid: str | None = None
    inherited: list[str] | None = None
    """Names of the valid checkpoints at takeover; None until the takeover is complete."""
    created_at: str


def newest_owner(directory: Path) -> OwnerRecord | None:
    """Return the newest owner that completed its takeover, or None.

    An owner with an incomplete or torn record committed no checkpoint, so the owner before it stays authoritative.
    """
    for epoch in sorted(_epochs(directory), reverse=True):
        try:
            record = OwnerRecord.model_validate_json((directory / f"{epoch}.json").read_bytes())
        except ValidationError:
            continue
        if record.inherited is not None:
            return record
    return None


def belongs_to_run(name: str, owner_epoch: int, owner: OwnerRecord | None) -> bool:
    """Return whether a checkpoint was written or inherited by the newest owner; True if there was no owner yet."""
    return owner is None or owner_epoch == owner.epoch or name in (owner.inherited or ())


class Ownership:
    """This trainer's claim on a run directory."""

    def __init__(self, directory: Path, record: OwnerRecord) -> None:
        self._directory = directory
        self._record = record

    @property
    def epoch(self) -> int:
        """This trainer's owner epoch."""
        return self._record.epoch

    @property
    def path(self) -> Path:
        """Path of the owner record."""
        return self._directory / f"{self.epoch}.json"

    def record_with_inherited(self, names: Iterable[str]) -> bytes:
        """Return the content of the owner record with the inherited checkpoints."""
        return _content(self._record.model_copy(update={"inherited": sorted(names)}))

    def check(self) -> None:
        """Verify that this trainer still owns the run directory.

        Raises:
            SupersededError: A newer trainer owns it.
        """
        newest = max(_epochs(self._directory), default=0)
        if newest > self.epoch:
            raise SupersededError(
                f"Trainer {newest} took over the run directory from this one ({self.epoch}); nothing was lost."
            )


def claim_ownership(
    directory: Path, *, files: Files, newest_epoch: int, pod_uid: str | None, created_at: str
) -> Ownership:
    """Create the next owner record, which fences all older owners; of concurrent claims the highest epoch wins.

    Args:
        directory: Directory of the owner records.
        files: Writes the record.
        newest_epoch: Highest owner epoch of the checkpoints; the new epoch is higher.
        pod_uid: UID of the trainer pod.
        created_at: Time of the claim, RFC 3339.
    """
    while True:
        epoch = max(newest_epoch, *_epochs(directory), 0) + 1
        record = OwnerRecord(epoch=epoch, pod_uid=pod_uid, created_at=created_at)
        try:
            files.create(directory / f"{epoch}.json", _content(record))
        except FileExistsError:
            continue
        return Ownership(directory, record)


def _content(record: OwnerRecord) -> bytes:
    return record.model_dump_json(by_alias=True, exclude_none=True).encode()


def _epochs(directory: Path) -> list[int]:
    return [int(path.stem) for path in directory.glob("*.json") if path.stem.isdecimal()]
