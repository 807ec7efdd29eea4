"""What makes a stale trainer harmless: a private directory that its successor takes away.

A trainer that was cut off may go on at any instant, also between looking whether it still owns the run directory and
acting on it, so no look is enough. Therefore every change to what a successor may read is one rename out of the
trainer's staging (a checkpoint, the index, metrics.jsonl, resolved.json, the export, result.json) or into it (a
checkpoint or export that goes). A successor

1. writes a newer owner record,
2. moves the staging directories of all older trainers away, each in one rename: from here on their renames fail,
3. reads, verifies and inherits what is there; nobody but itself can change that any more.

A trainer makes its staging after its own record and looks for newer records after that, so of two that take over at
once the older one either finds its staging gone or the newer record. Removing a checkpoint by another way (rename
in place and delete) has no such point: between the look and the rename the successor may have inherited it.
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
    """The private directory of one owner of a run directory, on the same file system."""

    def __init__(self, directory: Path, *, files: Files, ownership: Ownership) -> None:
        self._directory = directory
        self._files = files
        self._ownership = ownership

    @property
    def owner_epoch(self) -> int:
        """The owner's number."""
        return self._ownership.epoch

    def path(self, name: str) -> Path:
        """Where something is written before it is published."""
        return self._directory / name

    def publish(self, source: Path, target: Path) -> None:
        """Give something of the staging its final name, replacing a file of that name.

        Raises:
            SupersededError: A newer trainer owns the run directory; nothing was changed.
        """
        with superseded_if_gone(self._ownership):
            self._ownership.check()
            self._files.rename(source, target)

    def create(self, path: Path) -> io.FileIO:
        """Open a new file of the staging for writing, unbuffered.

        Raises:
            SupersededError: A newer trainer owns the run directory.
        """
        with superseded_if_gone(self._ownership):
            return io.FileIO(path, "wb")

    def replace(self, path: Path, data: bytes) -> None:
        """Write a file: readers see the old content or the new one.

        Raises:
            SupersededError: A newer trainer owns the run directory; nothing was changed.
        """
        temporary = self.path(path.name)
        with superseded_if_gone(self._ownership):
            self._files.write(temporary, data)
        self.publish(temporary, path)

    def discard(self, directory: Path) -> None:
        """Remove a directory of the run, if it is still there.

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
        """Remove the staging."""
        self._files.remove_tree(self._directory)


@contextmanager
def superseded_if_gone(ownership: Ownership) -> Iterator[None]:
    """A file that is suddenly missing was taken away by a newer trainer, if there is one.

    Raises:
        SupersededError: A newer trainer owns the run directory.
    """
    try:
        yield
    except FileNotFoundError:
        ownership.check()
        raise


def open_staging(directory: Path, *, files: Files, ownership: Ownership) -> StagingDirectory:
    """Make this owner's staging in a directory and take away those of older owners with all that was left in them.

    Raises:
        SupersededError: A newer trainer owns the run directory.
    """
    own = directory / f"{TEMPORARY_PREFIX}e{ownership.epoch}"
    files.remove_tree(own)
    own.mkdir()
    for path in sorted(directory.glob(f"{TEMPORARY_PREFIX}*")):
        if not _is_of(path.name, ownership.epoch):
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
    """Remove the staging directories of a run that is finished; who still has one has nothing to publish any more."""
    for path in directory.glob(f"{TEMPORARY_PREFIX}*"):
        files.remove_tree(path)


def _is_of(name: str, epoch: int) -> bool:
    """Whether a leftover's name is that of a staging of this owner or a newer one."""
    found = _NAME.fullmatch(name)
    return found is not None and int(found.group(1)) >= epoch
