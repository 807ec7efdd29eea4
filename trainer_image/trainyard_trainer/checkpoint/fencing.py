"""Who owns a run directory: the trainer with the highest number. The number is the fence, whatever the volume allows.

A trainer that was cut off may still be writing when its successor starts. It cannot be stopped, so its successor takes
its staging away (staging.py), and a checkpoint counts only if the newest owner made it or inherited it.
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
    inherited: list[str] | None = None
    """Names of the checkpoints that counted and verified when it took over; None until it knows."""
    created_at: str


def newest_owner(directory: Path) -> OwnerRecord | None:
    """The newest owner that finished taking over, or None.

    One that did not has committed nothing and, as far as anybody can tell, inherited nothing: the one before it still
    decides. So it is with a torn record.
    """
    for epoch in sorted(_epochs(directory), reverse=True):
        try:
            record = OwnerRecord.model_validate_json((directory / f"{epoch}.json").read_bytes())
        except ValidationError:
            continue
        if record.inherited is not None:
            return record
    return None


def counts(name: str, owner_epoch: int, owner: OwnerRecord | None) -> bool:
    """Whether a verified checkpoint belongs to the run; all do while nobody ever owned the directory."""
    return owner is None or owner_epoch == owner.epoch or name in (owner.inherited or ())


class Ownership:
    """This trainer's claim on a run directory."""

    def __init__(self, directory: Path, record: OwnerRecord) -> None:
        self._directory = directory
        self._record = record

    @property
    def epoch(self) -> int:
        """This trainer's number."""
        return self._record.epoch

    @property
    def path(self) -> Path:
        """The file of its record."""
        return self._directory / f"{self.epoch}.json"

    def inheriting(self, names: Iterable[str]) -> bytes:
        """The content of its record once it knows what it inherits."""
        return _content(self._record.model_copy(update={"inherited": sorted(names)}))

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


def claim(directory: Path, *, files: Files, beyond: int, pod_uid: str | None, created_at: str) -> Ownership:
    """Become the newest owner, which fences all others off; of several that try at once the last one wins.

    Args:
        directory: The directory of the records.
        files: Writes the record.
        beyond: The number will be greater; the greatest one that a checkpoint bears.
        pod_uid: The pod this trainer runs in.
        created_at: The time.
    """
    while True:
        epoch = max(beyond, *_epochs(directory), 0) + 1
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
