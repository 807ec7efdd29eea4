"""Downloads that go on where they stopped, are checked, and are found again by the next start."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trainyard_trainer.checkpoint.files import sha256_of
from trainyard_trainer.errors import DataError, SourceError, StorageError
from trainyard_trainer.sources.objects import RemoteFile

_PARTIAL, _LOCK = ".part", ".lock"
_WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each try after one that brought nothing."""
_TICK = 0.1


_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


class Remote(Protocol):
    """Where files are: a bucket, a web server, a repository of the hub."""

    @property
    def part_bytes(self) -> int:
        """Bytes to ask for at once."""

    def url(self, key: str) -> str:
        """A file's name for messages."""

    def read(self, file: RemoteFile, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` to before `stop`."""


@dataclass(frozen=True, kw_only=True)
class Downloader:
    """Fetches files into a cache."""

    cache: Path
    poll: Callable[[], None]
    """Called after every few megabytes and while waiting; may raise."""
    progress: Callable[[float], None]
    """Told the share done, 0 to 100."""
    sleep: Callable[[float], None] = time.sleep

    def fetch(self, remote: Remote, file: RemoteFile, sha256: str | None = None) -> Path:
        """One file; see `fetch_all`.

        Args:
            remote: Where it is.
            file: What it is.
            sha256: The digest it must have, hex, if the user gave one.

        Raises:
            DataError: its content has another digest.
            SourceError: it cannot be had, or changed while it was downloaded.
            StorageError: the cache's volume is full.
        """
        directory = self.fetch_all(remote, [(file, Path(file.key).name)])
        path = directory / Path(file.key).name
        if sha256 is not None and (found := sha256_of(path)) != sha256:
            path.unlink()
            raise DataError(
                f"{remote.url(file.key)} has the SHA-256 {found}, not {sha256}.",
                "Correct sha256 in spec.dataset, or put the right file there.",
            )
        return path

    def fetch_all(self, remote: Remote, files: Sequence[tuple[RemoteFile, str]]) -> Path:
        """Files with their names, into one directory; those that are there are left, those in part are gone on with."""
        directory = self.cache / fingerprint(remote, [file for file, _name in files])[:32]
        total, done = sum(file.bytes for file, _name in files), 0
        with self._storage_errors(remote):
            directory.mkdir(parents=True, exist_ok=True)
        with self._storage_errors(remote), self._alone(directory, total):
            for file, name in files:
                self._fetch_one(remote, file, directory / name, done, total)
                done += file.bytes
        return directory

    def _fetch_one(self, remote: Remote, file: RemoteFile, target: Path, done: int, total: int) -> None:
        if _is_there(target, file):
            return
        part = target.with_name(f"{target.name}{_PARTIAL}")
        try:
            self._make_whole(remote, file, part, done, total)
            part.rename(target)
        except FileNotFoundError:
            if not _is_there(target, file):  # somebody whom no lock stopped was done first
                raise

    def _make_whole(self, remote: Remote, file: RemoteFile, part: Path, done: int, total: int) -> None:
        self._complete(remote, file, part, done, total)
        if part.stat().st_size != file.bytes or not _is_intact(part, file):
            part.unlink()
            raise SourceError(f"{remote.url(file.key)} did not arrive as it was sent.", "It is worth trying again.")

    @contextmanager
    def _alone(self, directory: Path, total: int) -> Iterator[None]:
        """Wait until nobody else downloads to the directory, where its file system has locks.

        Where it has none, two of them write the same bytes to the same places, and one of them starts again.
        """
        with directory.with_suffix(_LOCK).open("w") as lock:
            while not _locked(lock.fileno()):
                self.progress(min(100.0, 100 * _bytes_in(directory) / max(1, total)))
                self._wait(1.0)
            yield

    def _complete(self, remote: Remote, file: RemoteFile, part: Path, done: int, total: int) -> None:
        """Append to a file until it is whole; every try that brings nothing waits longer."""
        part.touch()
        waits = iter(_WAITS)
        while (size := part.stat().st_size) < file.bytes:
            try:
                self._append(remote, file, part, done, total)
            except SourceError:
                if part.stat().st_size > size:
                    waits = iter(_WAITS)
                elif (seconds := next(waits, None)) is None:
                    raise
                else:
                    self._wait(seconds)

    def _append(self, remote: Remote, file: RemoteFile, part: Path, done: int, total: int) -> None:
        with part.open("r+b") as out:
            start = out.seek(0, os.SEEK_END)
            for chunk in remote.read(file, start, min(start + remote.part_bytes, file.bytes)):
                out.write(chunk)
                start += len(chunk)
                self.progress(100 * (done + start) / max(1, total))
                self.poll()

    def _wait(self, seconds: float) -> None:
        for _ in range(round(seconds / _TICK)):
            self.poll()
            self.sleep(_TICK)

    @contextmanager
    def _storage_errors(self, remote: Remote) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            free = shutil.disk_usage(_existing(self.cache)).free >> 20
            raise StorageError(
                f"The download from {remote.url('')} could not be written to {self.cache}: {error.strerror} "
                f"({free} MiB free).",
                "Give the pod more ephemeral storage, or the claim of spec.storage.cache more room.",
            ) from error


def cache_directory() -> Path:
    """Where downloads are kept: the user's cache, which in a pod is its scratch volume."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "trainyard" / "downloads"


def fingerprint(remote: Remote, files: Sequence[RemoteFile]) -> str:
    """Hex SHA-256 over names, sizes and tags: another one when a file changed."""
    lines = [f"{remote.url(file.key)} {file.bytes} {file.tag}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _is_there(path: Path, file: RemoteFile) -> bool:
    return path.is_file() and path.stat().st_size == file.bytes


def _is_intact(path: Path, file: RemoteFile) -> bool:
    """Whether the content has the digests that its server tells."""
    return (file.sha256 is None or sha256_of(path) == file.sha256) and (
        file.blob is None or _git_blob(path) == file.blob
    )


def _git_blob(path: Path) -> str:
    """Git's name of a content: SHA-1 over its kind, its size and itself."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content), usedforsecurity=False).hexdigest()


def _bytes_in(directory: Path) -> int:
    """Bytes of the files, while another process downloads: one may get its last name between two looks."""
    total = 0
    for path in directory.iterdir():
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _existing(path: Path) -> Path:
    """The path, or the nearest directory above it that exists."""
    return next(one for one in (path, *path.parents) if one.exists())
