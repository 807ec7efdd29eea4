"""The file system calls that make something durable, and their errors in a user's words."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from trainyard_trainer.errors import StorageError

TEMPORARY_PREFIX = ".tmp-"
"""Names that start so are leftovers of an interrupted write once their writer is gone."""

_CHUNK = 1 << 20
_READABLE = 0o444

_CHECK_VOLUME = "Check the volume and the node it is attached to."
_STORAGE_FAULTS = {
    errno.ENOSPC: ("is full", "Use a larger volume (storage.size) or keep fewer checkpoints (checkpoints.keep)."),
    errno.EDQUOT: ("has used up its quota", "Raise the quota or keep fewer checkpoints (checkpoints.keep)."),
    errno.EROFS: ("is read-only", "Make the volume writable, or use another one."),
    errno.EIO: ("failed with an I/O error", _CHECK_VOLUME),
    errno.EUCLEAN: ("is damaged", _CHECK_VOLUME),
    errno.EBADMSG: ("is damaged", _CHECK_VOLUME),
    errno.ESTALE: ("was taken away from this node", _CHECK_VOLUME),
}


class Files:
    """Writes that survive a crash at any point: they are either wholly there or not at all."""

    def fsync(self, path: Path) -> None:
        """Force a file's or a directory's content to the disk."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or directory its final name and make the name durable."""
        source.rename(target)
        self.fsync(target.parent)

    def write(self, path: Path, data: bytes) -> None:
        """Write a file and force it to the disk."""
        path.write_bytes(data)
        self.fsync(path)

    def create(self, path: Path, data: bytes) -> None:
        """Write a file that must not exist yet.

        Raises:
            FileExistsError: It exists.
        """
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self.fsync(path.parent)

    def fsync_tree(self, directory: Path) -> None:
        """Force every file and directory below to the disk, the directory itself last, and let every user read them.

        Some libraries make private files; pods that serve a model from the volume run as other users.
        """
        for parent, _directories, names in os.walk(directory, topdown=False):
            for name in names:
                path = Path(parent, name)
                path.chmod(path.stat().st_mode | _READABLE)
                self.fsync(path)
            self.fsync(Path(parent))

    def remove_tree(self, path: Path) -> None:
        """Remove a directory or a file that nobody looks at any more; what cannot be removed stays."""
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_all(file: io.FileIO, data: bytes) -> None:
    """Write all of it; a volume that fills up takes a part without an error, and refuses the rest."""
    while data:
        data = data[file.write(data) :]


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def files_below(directory: Path) -> list[Path]:
    """Every file below a directory, in a stable order."""
    return sorted(path for path in directory.rglob("*") if path.is_file())


def to_storage_error(error: BaseException, directory: Path) -> StorageError | None:
    """The user's error for a full, read-only or broken volume; None for any other error."""
    number = _error_number(error)
    if number not in _STORAGE_FAULTS:
        return None
    what, advice = _STORAGE_FAULTS[number]
    return StorageError(f"The volume of {directory} {what}.", advice)


def _error_number(error: BaseException) -> int:
    if isinstance(error, OSError):
        return error.errno or 0
    # The Rust library gives the number of the system's error only in its text.
    found = re.search(r"os error (\d+)", str(error)) if isinstance(error, SafetensorError) else None
    return int(found.group(1)) if found else 0


@contextmanager
def storage_errors(directory: Path) -> Iterator[None]:
    """Translate errors of the volume that `directory` lies on.

    Raises:
        StorageError: The volume is full, read-only or broken, or the directory must not be written.
    """
    try:
        yield
    except PermissionError as error:
        raise StorageError(
            f"The trainer (uid {os.getuid()}) may not write to {error.filename or directory}.",
            "Let that user write to the volume; in a pod, fsGroup 1000 does it.",
        ) from error
    except (OSError, SafetensorError) as error:
        fault = to_storage_error(error, directory)
        if fault is None:
            raise
        try:
            raise fault from error
        finally:
            del fault  # a circle through this frame would keep the model and its mapped files until the next collection
