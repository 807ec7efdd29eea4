"""What of a claim may be read: files that a manifest or an export record lists, and a run's own records."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any, NamedTuple

from trainyard_crds.serving import ArtifactFile, ArtifactListing

MANIFEST, RECORD = "manifest.json", "export.json"
_DIRECTORIES = {"checkpoints": MANIFEST, "exports": RECORD}
"""Directories of a run, and the file of each entry in them that lists its files."""
RUN_FILES = frozenset({"metrics.jsonl", "log.jsonl", "result.json", "resolved.json"})
"""Files of a run's directory that may be read, for its history after its pods are gone."""
_ROOT = "trainyard"
_LARGEST_RECORD = 8 << 20
"""Bytes of a record that are read: far more than the trainer writes, and little enough for the pod's memory."""


class UnreadableError(Exception):
    """The reader's user may not read a file; the text is a sentence."""


class Found(NamedTuple):
    """A file that may be read.

    Attributes:
        descriptor: Open file descriptor.
        bytes: Its size.
        sha256: Its digest as recorded; None for a run's own records.
    """

    descriptor: int
    bytes: int
    sha256: str | None


class Volume:
    """One claim.

    Args:
        root: Where it is mounted.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def listing(self, path: str) -> ArtifactListing | None:
        """Return the files of `trainyard/RUN/checkpoints/NAME` or `.../exports/NAME`; None if there is none.

        Raises:
            UnreadableError: the reader's user may not read its record.
        """
        parts = _parts(path)
        if parts is None or len(parts) != 4 or parts[0] != _ROOT or parts[2] not in _DIRECTORIES:
            return None
        record = _DIRECTORIES[parts[2]]
        data = self._read((*parts, record))
        return None if data is None else _listing(data, record)

    def open(self, path: str) -> Found | None:
        """Open a file that may be read; None if there is none. The caller closes it.

        Raises:
            UnreadableError: the reader's user may not read it.
        """
        parts = _parts(path)
        if parts is None or len(parts) < 3 or parts[0] != _ROOT:
            return None
        if len(parts) == 3:
            return self._open(parts, None) if parts[2] in RUN_FILES else None
        artifact, name = "/".join(parts[:4]), "/".join(parts[4:])
        listing = self.listing(artifact)
        if listing is None:
            return None
        if name == _DIRECTORIES[parts[2]]:
            return self._open(parts, None)
        entry = listing.files.get(name)
        return None if entry is None else self._open(parts, entry.sha256)

    def _open(self, parts: tuple[str, ...], sha256: str | None) -> Found | None:
        """Open a regular file without following a link in any part of its path."""
        descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in parts[:-1]:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=descriptor)
        except PermissionError:
            raise UnreadableError(
                f"The artifact reader (user {os.geteuid()}) may not read {'/'.join(parts)}, which another user wrote. "
                "Make it readable for all users."
            ) from None
        except OSError:
            return None
        finally:
            os.close(descriptor)
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            os.close(file)
            return None
        return Found(file, found.st_size, sha256)

    def _read(self, parts: tuple[str, ...]) -> bytes | None:
        found = self._open(parts, None)
        if found is None:
            return None
        with os.fdopen(found.descriptor, "rb") as file:
            return file.read(_LARGEST_RECORD)


def _parts(path: str) -> tuple[str, ...] | None:
    """Return the parts of a path on the volume; None for one with an empty part, '.', '..' or a NUL."""
    parts = tuple(path.split("/"))
    return None if any(part in ("", ".", "..") or "\0" in part for part in parts) else parts


def _listing(data: bytes, record: str) -> ArtifactListing | None:
    try:
        document: dict[str, Any] = json.loads(data)
        files = {str(name): ArtifactFile.model_validate(entry) for name, entry in document["files"].items()}
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None
    if not all(map(_parts, files)):
        return None  # a name that leads out of the directory: this is no record of ours
    return ArtifactListing(digest=_digest(data, files, record), files=files)


def _digest(data: bytes, files: dict[str, ArtifactFile], record: str) -> str:
    """Return the digest as the status of the TrainingJob has it: of the manifest, or of an export's file list."""
    if record == RECORD:
        data = "".join(f"{entry.sha256}  {path}\n" for path, entry in sorted(files.items())).encode()
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
