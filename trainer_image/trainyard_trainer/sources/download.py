"""Downloads that go on where they stopped, are checked, and are found again by the next start."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainyard_trainer.checkpoint.files import sha256_of
from trainyard_trainer.errors import DataError, SourceError, StorageError
from trainyard_trainer.sources.objects import Remote, RemoteFile

_PART = 16 << 20
"""Bytes asked for at once."""
_PARTIAL, _LOCK = ".part", ".lock"
_WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each try after one that brought nothing."""
_TICK = 0.1


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
        with _storage_errors(remote):
            directory.mkdir(parents=True, exist_ok=True)
        with _storage_errors(remote), self._alone(directory):
            for file, name in files:
                self._fetch_one(remote, file, directory / name, done, total)
                done += file.bytes
        return directory

    def _fetch_one(self, remote: Remote, file: RemoteFile, target: Path, done: int, total: int) -> None:
        if target.is_file() and target.stat().st_size == file.bytes:
            return
        part = target.with_name(f"{target.name}{_PARTIAL}")
        self._complete(remote, file, part, done, total)
        if part.stat().st_size != file.bytes or (file.sha256 is not None and sha256_of(part) != file.sha256):
            part.unlink()
            raise SourceError(f"{remote.url(file.key)} did not arrive as it was sent.", "It is worth trying again.")
        part.rename(target)

    @contextmanager
    def _alone(self, directory: Path) -> Iterator[None]:
        """Wait until no other process of this machine downloads to the directory."""
        with (directory / _LOCK).open("w") as lock:
            while not _locked(lock.fileno()):
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
        start = part.stat().st_size
        with part.open("ab") as out:
            for chunk in remote.read(file, start, min(start + _PART, file.bytes)):
                out.write(chunk)
                start += len(chunk)
                self.progress(100 * (done + start) / max(1, total))
                self.poll()

    def _wait(self, seconds: float) -> None:
        for _ in range(round(seconds / _TICK)):
            self.poll()
            self.sleep(_TICK)


def cache_directory() -> Path:
    """Where downloads are kept: the user's cache, which in a pod is its scratch volume."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "trainyard" / "downloads"


def fingerprint(remote: Remote, files: Sequence[RemoteFile]) -> str:
    """Hex SHA-256 over names, sizes and tags: another one when a file changed."""
    lines = [f"{remote.url(file.key)} {file.bytes} {file.tag}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _storage_errors(remote: Remote) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        free = shutil.disk_usage(Path.home()).free >> 20
        raise StorageError(
            f"The download from {remote.url('')} could not be written: {error.strerror} ({free} MiB free).",
            "Give the pod more ephemeral storage.",
        ) from error
