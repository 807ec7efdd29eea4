"""Folders of object storage that exports are copied to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from trainyard_crds.runconfig import RunS3
from trainyard_trainer.checkpoint.files import sha256_of
from trainyard_trainer.errors import NotFoundError, SourceError
from trainyard_trainer.sources.remote_files import S3_SCHEME, Remote, open_bucket

_CHUNK = 1 << 20


def split_url(url: str) -> tuple[str, str]:
    """Bucket and key of an s3:// URL."""
    bucket, _, key = url.removeprefix(S3_SCHEME).partition("/")
    return bucket, key.strip("/")


class Bucket:
    """A folder of a bucket."""

    def __init__(self, remote: Remote, folder: str) -> None:
        self._remote = remote
        self._folder = folder

    @classmethod
    def open(cls, url: str, s3: RunS3, environ: Mapping[str, str] = os.environ) -> Bucket:
        """The folder of an s3:// URL, with the credentials of the environment."""
        bucket, folder = split_url(url)
        return cls(open_bucket(bucket, s3, environ), folder)

    def upload(
        self,
        directory: Path,
        names: Sequence[str],
        digests: Mapping[str, str],
        progress: Callable[[float], None],
        poll: Callable[[], None],
    ) -> None:
        """Copy files in this order; those that are there already, of the same size and digest, are left.

        Args:
            directory: Where they are.
            names: Their names, relative to the directory and to the folder.
            digests: Hex SHA-256 of those whose digest is known.
            progress: Told the share done, 0 to 100.
            poll: Called after every megabyte; may raise.

        Raises:
            NotPermittedError: The credentials do not do.
            SourceError: The storage cannot be reached, or does not hold what was written.
        """
        total, done = sum((directory / name).stat().st_size for name in names), 0
        for name in names:
            path = directory / name
            self._copy(path, name, digests.get(name) or sha256_of(path), poll)
            done += path.stat().st_size
            progress(100 * done / max(1, total))

    def _copy(self, path: Path, name: str, sha256: str, poll: Callable[[], None]) -> None:
        key = f"{self._folder}/{name}"
        if self._holds(key, path.stat().st_size, sha256):
            return
        poll()
        self._remote.give_up_uploads(key)  # of a start that was killed in the middle of it
        try:
            self._remote.write(key, _chunks(path, poll), sha256)
        finally:
            poll()  # a stop request reaches us through the client as an error of its own
        if not self._holds(key, path.stat().st_size, sha256):
            raise SourceError(f"{self._remote.url(key)} is not what was written to it.", "It is worth trying again.")

    def _holds(self, key: str, size: int, sha256: str) -> bool:
        try:
            found = self._remote.look_up(key)
        except NotFoundError:
            return False
        return (found.bytes, found.sha256) == (size, sha256)


def _chunks(path: Path, poll: Callable[[], None]) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            poll()
            yield chunk
