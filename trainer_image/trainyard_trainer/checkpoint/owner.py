"""Who owns a run directory: the trainer with the highest number. The number is the fence, whatever the volume allows.

A trainer that was cut off may still be writing when its successor starts. It cannot be stopped, so its late commits are
made invisible: a checkpoint counts only if the newest owner made it or found it when it took over.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, ValidationError

from trainyard_crds.common import StatusModel
from trainyard_trainer.checkpoint.files import Files
from trainyard_trainer.errors import SupersededError


class OwnerRecord(StatusModel):
    """One owner of the run directory."""

    epoch: int = Field(ge=1)
    pod_uid: str | None = None
    inherited: list[str] = []
    """Names of the checkpoints that counted and verified when it took over."""
    created_at: str


def newest_owner(directory: Path) -> OwnerRecord | None:
    """The newest owner that finished taking over, or None.

    A torn record belongs to a trainer that died before it did anything else, so the one before it still decides.
    """
    for epoch in sorted(_epochs(directory), reverse=True):
        try:
            return OwnerRecord.model_validate_json((directory / f"{epoch}.json").read_bytes())
        except ValidationError:
            continue
    return None


def counts(name: str, owner_epoch: int, owner: OwnerRecord | None) -> bool:
    """Whether a verified checkpoint belongs to the run; all do while nobody ever owned the directory."""
    return owner is None or owner_epoch == owner.epoch or name in owner.inherited


class Ownership:
    """This trainer's claim on a run directory."""

    def __init__(self, directory: Path, epoch: int) -> None:
        self._directory = directory
        self.epoch = epoch

    def check(self) -> None:
        """Make sure that nobody took over.

        Raises:
            SupersededError: A newer trainer owns the run directory.
        """
        newest = max(_epochs(self._directory), default=0)
        if newest > self.epoch:
            raise SupersededError(
                f"Trainer {newest} took over the run directory from this one ({self.epoch}); nothing was lost."
            )


def take_over(
    directory: Path, *, files: Files, inherited: Iterable[str], pod_uid: str | None, created_at: str
) -> Ownership:
    """Become the newest owner; of several that try at once the last one wins."""
    names = sorted(inherited)
    while True:
        epoch = max(_epochs(directory), default=0) + 1
        record = OwnerRecord(epoch=epoch, pod_uid=pod_uid, inherited=names, created_at=created_at)
        try:
            files.create(directory / f"{epoch}.json", record.model_dump_json(by_alias=True, exclude_none=True).encode())
        except FileExistsError:
            continue
        return Ownership(directory, epoch)


def _epochs(directory: Path) -> list[int]:
    return [int(path.stem) for path in directory.glob("*.json") if path.stem.isdecimal()]
