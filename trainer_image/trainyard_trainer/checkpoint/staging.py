"""The staging directory of a trainer, by which a successor fences it.

A partitioned trainer may resume at any instant, also between an ownership check and the write that follows, so a check
alone is not a fence. Every change to files that a successor may read is therefore one rename out of the trainer's
staging directory (a checkpoint, the index, metrics.jsonl, resolved.json, the export, result.json) or into it (a
checkpoint or export to remove). A successor

1. writes a newer owner record,
2. renames the staging directories of all older trainers away: from then on their renames fail,
3. reads, verifies and inherits the checkpoints, which only the successor can change from here on.

A trainer creates its staging directory after its owner record and checks for newer records after that. Of two
concurrent takeovers, the older one therefore finds either its staging directory gone or the newer record. Removing a
checkpoint in any other way (rename in place, then delete) has no such fence: between the check and the rename the
successor may have inherited it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainyard_trainer.checkpoint.fencing import Ownership
from trainyard_trainer.checkpoint.files import TEMPORARY_PREFIX, Files

_NAME = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}e(\d+)")


class StagingDirectory:
    """Private directory of one owner of a run directory, on the same file system."""

    def __init__(self, directory: Path, *, files: Files, ownership: Ownership) -> None:
        self._directory = directory
        self._files = files
        self._ownership = ownership

    @property
    def owner_epoch(self) -> int:
        """Owner epoch of the trainer."""
        return self._ownership.epoch

    def path(self, name: str) -> Path:
        """Return the path to write something to before it is published."""
        return self._directory / name

    def publish(self, source: Path, target: Path) -> None:
        """Rename a staged file or directory into place, replacing a file of that name.

        Raises:
            SupersededError: A newer trainer owns the run directory; nothing was changed.
        """
        with superseded_if_gone(self._ownership):
            self._ownership.check()
            self._files.rename(source, target)

    def create(self, path: Path) -> io.FileIO:
        """Open a new staged file for unbuffered writing.

        Raises:
            SupersededError: A newer trainer owns the run directory.
        """
        with superseded_if_gone(self._ownership):
            return io.FileIO(path, "wb")

    def replace(self, path: Path, data: bytes) -> None:
        """Replace a file atomically.

        Raises:
            SupersededError: A newer trainer owns the run directory; nothing was changed.
        """
        temporary = self.path(path.name)
        with superseded_if_gone(self._ownership):
            self._files.write(temporary, data)
        self.publish(temporary, path)

    def discard(self, directory: Path) -> None:
        """Remove a directory of the run if it exists.

        Raises:
            SupersededError: A newer trainer owns the run directory; nothing was removed.
        """
        self._ownership.check()
        hidden = self.path(f"removed-{directory.name}")
        with suppress(FileNotFoundError):
            directory.rename(hidden)
        self._ownership.check()
        self._files.remove_tree(hidden)

    def close(self) -> None:
        """Remove the staging directory."""
        self._files.remove_tree(self._directory)


@contextmanager
def superseded_if_gone(ownership: Ownership) -> Iterator[None]:
    """Map FileNotFoundError to SupersededError if a newer trainer has taken over.

    Raises:
        SupersededError: A newer trainer owns the run directory.
    """
    try:
        yield
    except FileNotFoundError:
        ownership.check()
        raise


def open_staging(directory: Path, *, files: Files, ownership: Ownership) -> StagingDirectory:
    """Create this owner's staging directory, and remove those of older owners with their content.

    Raises:
        SupersededError: A newer trainer owns the run directory.
    """
    own = directory / f"{TEMPORARY_PREFIX}e{ownership.epoch}"
    files.remove_tree(own)
    own.mkdir()
    for path in sorted(directory.glob(f"{TEMPORARY_PREFIX}*")):
        if not _is_current_or_newer(path.name, ownership.epoch):
            with suppress(FileNotFoundError):
                path.rename(own / f"left-{path.name}")
    try:
        ownership.check()
    except Exception:
        files.remove_tree(own)
        raise
    for path in own.iterdir():
        files.remove_tree(path)
    return StagingDirectory(own, files=files, ownership=ownership)


def clear_staging(directory: Path, files: Files) -> None:
    """Remove all staging directories of a finished run, in which nothing is left to publish."""
    for path in directory.glob(f"{TEMPORARY_PREFIX}*"):
        files.remove_tree(path)


def _is_current_or_newer(name: str, epoch: int) -> bool:
    """Return whether a name is that of a staging directory of this owner or a newer one."""
    found = _NAME.fullmatch(name)
    return found is not None and int(found.group(1)) >= epoch
