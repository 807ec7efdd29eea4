"""Durable file system operations, and the mapping of their errors to StorageError."""

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
"""Prefix of files and directories of an unfinished write; leftovers once their writer has ended."""

_CHUNK = 1 << 20
_READABLE = 0o444

_GO_ON = "Then a new TrainingJob with spec.resumeFrom continues from the last checkpoint."
_CHECK_VOLUME = "Check the volume and the node it is attached to."
_STORAGE_ERRORS = {
    errno.ENOSPC: ("is full", f"Enlarge the volume, use another one or keep fewer checkpoints. {_GO_ON}"),
    errno.EDQUOT: ("has used up its quota", f"Raise the quota or keep fewer checkpoints. {_GO_ON}"),
    errno.EROFS: ("is read-only", f"Make the volume writable, or use another one. {_GO_ON}"),
    errno.EIO: ("failed with an I/O error", _CHECK_VOLUME),
    errno.EUCLEAN: ("is damaged", _CHECK_VOLUME),
    errno.EBADMSG: ("is damaged", _CHECK_VOLUME),
    errno.ESTALE: ("was taken away from this node", _CHECK_VOLUME),
}


class Files:
    """File system operations that survive a crash at any point: the result exists completely or not at all."""

    def fsync(self, path: Path) -> None:
        """Fsync a file or a directory."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file or directory, and fsync the directory of the target."""
        source.rename(target)
        self.fsync(target.parent)

    def write(self, path: Path, data: bytes) -> None:
        """Write a file and fsync it."""
        path.write_bytes(data)
        self.fsync(path)

    def create(self, path: Path, data: bytes) -> None:
        """Create a file with this content, durably.

        Raises:
            FileExistsError: The file exists.
        """
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self.fsync(path.parent)

    def fsync_tree(self, directory: Path) -> None:
        """Fsync every file and directory below, the directory itself last, and make the files readable for all users.

        Some libraries create private files; pods that serve a model from the volume run as other users.
        """
        for parent, _directories, names in os.walk(directory, topdown=False):
            for name in names:
                path = Path(parent, name)
                path.chmod(path.stat().st_mode | _READABLE)
                self.fsync(path)
            self.fsync(Path(parent))

    def remove_tree(self, path: Path) -> None:
        """Remove a directory tree, ignoring errors, or a file."""
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_all(file: io.FileIO, data: bytes) -> None:
    """Write all bytes. A volume that fills up accepts a partial write and reports the error on the next one."""
    while data:
        data = data[file.write(data) :]


def sha256_of(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def files_below(directory: Path) -> list[Path]:
    """Return every file below a directory, sorted by path."""
    return sorted(path for path in directory.rglob("*") if path.is_file())


def to_storage_error(error: BaseException, directory: Path) -> StorageError | None:
    """Return the StorageError for a full, read-only or failing volume; None for any other error."""
    number = _error_number(error)
    if number not in _STORAGE_ERRORS:
        return None
    problem, advice = _STORAGE_ERRORS[number]
    return StorageError(f"The volume of {directory} {problem}.", advice)


def _error_number(error: BaseException) -> int:
    if isinstance(error, OSError):
        return error.errno or 0
    # safetensors (Rust) reports errno only in the message.
    found = re.search(r"os error (\d+)", str(error)) if isinstance(error, SafetensorError) else None
    return int(found.group(1)) if found else 0


@contextmanager
def storage_errors(directory: Path) -> Iterator[None]:
    """Map errors of the volume that holds `directory`.

    Raises:
        StorageError: The volume is full, read-only or failing, or the directory is not writable.
    """
    try:
        yield
    except PermissionError as error:
        raise StorageError(
            f"The trainer (uid {os.getuid()}) may not write to {error.filename or directory}.",
            "Let that user write to the volume; in a pod, fsGroup 1000 does it.",
        ) from error
    except (OSError, SafetensorError) as error:
        storage_error = to_storage_error(error, directory)
        if storage_error is None:
            raise
        try:
            raise storage_error from error
        finally:
            del storage_error  # a reference cycle through this frame would keep the model and its mapped files alive
