"""Downloads that resume, verify their content, and are kept in a cache."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from trainyard_trainer.checkpoint.files import Files, sha256_of
from trainyard_trainer.errors import DataError, SourceError, StorageError
from trainyard_trainer.sources.remote_files import RemoteFile

_PARTIAL, _LOCK = ".part", ".lock"
_CHUNK = 1 << 20
_STREAMS = 4
"""Concurrent downloads; a single stream rarely saturates a network."""
_BACKOFF = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each retry of a request that returned no bytes."""
_TICK = 0.1

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""Errors of file systems without locks."""

Poll = Callable[[], None]


class Remote(Protocol):
    """A place that serves files: a bucket, a web server, a repository of the hub."""

    @property
    def part_bytes(self) -> int:
        """Bytes per request."""

    def url(self, key: str) -> str:
        """The name of a file in messages."""

    def read(self, file: RemoteFile, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`, exclusive."""


@dataclass(frozen=True, kw_only=True)
class Downloader:
    """Fetches files into a cache."""

    cache: Path
    poll: Callable[[], None]
    """Called after each chunk and while waiting; may raise."""
    progress: Callable[[float], None]
    """Receives the percentage done, 0 to 100."""
    sleep: Callable[[float], None] = time.sleep

    def fetch(self, remote: Remote, file: RemoteFile, sha256: str | None = None) -> Path:
        """Fetch one file; see `fetch_all`.

        Args:
            remote: The place that serves it.
            file: The file.
            sha256: The expected digest, hex, if the user set one.

        Raises:
            DataError: its content has another digest.
            SourceError: it cannot be downloaded, or changed during the download.
            StorageError: the volume of the cache is full.
        """
        directory = self.fetch_all(remote, [(file, Path(file.key).name)])
        path = directory / Path(file.key).name
        if sha256 is not None and (found := sha256_of(path)) != sha256:
            path.unlink()
            raise DataError(
                f"{remote.url(file.key)} has the SHA-256 {found}, not {sha256}.",
                "Correct sha256 in spec.dataset, or replace the file.",
            )
        return path

    def fetch_all(self, remote: Remote, files: Sequence[tuple[RemoteFile, str]]) -> Path:
        """Fetch files into one directory under their names; complete files are kept, partial ones resumed."""
        directory = self.cache / fingerprint(remote, [file for file, _name in files])[:32]
        total = sum(file.bytes for file, _name in files)
        with self._storage_errors(remote):
            directory.mkdir(parents=True, exist_ok=True)
        with self._storage_errors(remote), self._locked(directory, total):
            meter = _Meter(total, self.progress)
            _run_concurrently([partial(self._fetch_one, remote, file, directory / name, meter) for file, name in files])
        return directory

    def _fetch_one(self, remote: Remote, file: RemoteFile, target: Path, meter: _Meter, check: Poll) -> None:
        if _is_complete(target, file):
            meter.add(file.bytes)
            return
        part = target.with_name(f"{target.name}{_PARTIAL}")
        fetch = _Fetch(remote=remote, file=file, part=part, meter=meter, poll=_both(self.poll, check), sleep=self.sleep)
        try:
            fetch.run()
            Files().fsync(part)  # else a node crash can leave a file of the right size with other content
            Files().rename(part, target)
        except FileNotFoundError:
            if not _is_complete(target, file):  # without locks, another process may have renamed it
                raise

    @contextmanager
    def _locked(self, directory: Path, total: int) -> Iterator[None]:
        """Hold the lock of the directory; wait while another process has it.

        Without file system locks, two processes write the same bytes to the same offsets, and one of them restarts.
        """
        with directory.with_suffix(_LOCK).open("w") as lock:
            while not _try_lock(lock.fileno()):
                self.progress(min(100.0, 100 * _bytes_in(directory) / max(1, total)))
                _wait(1.0, self.poll, self.sleep)
            yield

    @contextmanager
    def _storage_errors(self, remote: Remote) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            free = shutil.disk_usage(_existing(self.cache)).free >> 20
            raise StorageError(
                f"The download from {remote.url('')} could not be written to {self.cache}: {error.strerror} "
                f"({free} MiB free).",
                "Give the pod more ephemeral storage, or the claim of spec.storage.cache more space.",
            ) from error


@dataclass(frozen=True, kw_only=True)
class _Fetch:
    """Download of one file to its partial file."""

    remote: Remote
    file: RemoteFile
    part: Path
    meter: _Meter
    poll: Poll
    sleep: Callable[[float], None]

    def run(self) -> None:
        """Complete the partial file.

        Raises:
            SourceError: the download failed, or its content is corrupt; a corrupt file is removed.
        """
        self.part.touch()
        self.meter.add(self.part.stat().st_size)
        self._complete()
        if self.part.stat().st_size != self.file.bytes or not self._is_intact():
            self.part.unlink()
            name = self.remote.url(self.file.key)
            raise SourceError(f"{name} was corrupted during the download.", "Try again.")

    def _complete(self) -> None:
        """Append until the size is reached; back off after each request that returned no bytes."""
        backoff = iter(_BACKOFF)
        while (size := self.part.stat().st_size) < self.file.bytes:
            try:
                self._append()
            except SourceError:
                if self.part.stat().st_size > size:
                    backoff = iter(_BACKOFF)
                elif (seconds := next(backoff, None)) is None:
                    raise
                else:
                    _wait(seconds, self.poll, self.sleep)

    def _append(self) -> None:
        with self.part.open("r+b") as out:
            start = out.seek(0, os.SEEK_END)
            for chunk in self.remote.read(self.file, start, min(start + self.remote.part_bytes, self.file.bytes)):
                out.write(chunk)
                self.meter.add(len(chunk))
                self.poll()

    def _is_intact(self) -> bool:
        """Whether the content has the digests that the server reports."""
        if self.file.sha256 is not None and self._digest(hashlib.sha256()) != self.file.sha256:
            return False
        # The object id of git: a digest over type, size and content.
        blob = hashlib.sha1(b"blob %d\0" % self.file.bytes, usedforsecurity=False)
        return self.file.blob is None or self._digest(blob) == self.file.blob

    def _digest(self, digest: hashlib._Hash) -> str:
        with self.part.open("rb") as content:
            while chunk := content.read(_CHUNK):
                digest.update(chunk)
                self.poll()
        return digest.hexdigest()


class _Meter:
    """Reports the percentage of the bytes of all files; safe for threads."""

    def __init__(self, total: int, progress: Callable[[float], None]) -> None:
        self._total = max(1, total)
        self._progress = progress
        self._done = 0
        self._lock = threading.Lock()

    def add(self, number: int) -> None:
        """Add downloaded bytes."""
        with self._lock:
            self._done += number
            if number:
                self._progress(min(100.0, 100 * self._done / self._total))


class _Cancelled(Exception):  # noqa: N818 - never raised to a caller
    """The download of another file failed."""


def _run_concurrently(fetches: Sequence[Callable[[Poll], None]]) -> None:
    """Run in a few threads; the first error cancels the others and is raised."""
    failed = threading.Event()

    def check() -> None:
        if failed.is_set():
            raise _Cancelled

    def run(fetch: Callable[[Poll], None]) -> None:
        try:
            check()
            fetch(check)
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(_STREAMS) as pool:
        futures = [pool.submit(run, fetch) for fetch in fetches]
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda one: isinstance(one, _Cancelled))[:1]:
        raise error


def _both(first: Poll, second: Poll) -> Poll:
    def poll() -> None:
        first()
        second()

    return poll


def _wait(seconds: float, poll: Poll, sleep: Callable[[float], None]) -> None:
    for _ in range(round(seconds / _TICK)):
        poll()
        sleep(_TICK)


def cache_directory() -> Path:
    """The default cache of downloads: the user's cache, in a pod on its scratch volume."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "trainyard" / "downloads"


def fingerprint(remote: Remote, files: Sequence[RemoteFile]) -> str:
    """Hex SHA-256 over names, sizes and tags; it changes with any file."""
    lines = [f"{remote.url(file.key)} {file.bytes} {file.tag}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _is_complete(path: Path, file: RemoteFile) -> bool:
    return path.is_file() and path.stat().st_size == file.bytes


def _bytes_in(directory: Path) -> int:
    """Bytes of the files; another process may rename one during the iteration."""
    total = 0
    for path in directory.iterdir():
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def _try_lock(descriptor: int) -> bool:
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
