"""Folders of object storage that receive exports."""

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
        """Upload files in this order; skip those with the same size and digest in the bucket.

        Args:
            directory: Their directory.
            names: Their names, relative to the directory and to the folder.
            digests: Known hex SHA-256 by name.
            progress: Receives the percentage done, 0 to 100.
            poll: Called after every megabyte; may raise.

        Raises:
            NotPermittedError: The storage refuses the credentials.
            SourceError: The storage cannot be reached, or its content differs after the upload.
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
        self._remote.abort_uploads(key)  # of a killed attempt
        try:
            self._remote.write(key, _chunks(path, poll), sha256)
        finally:
            poll()  # the client wraps a stop request in its own error
        if not self._holds(key, path.stat().st_size, sha256):
            raise SourceError(f"{self._remote.url(key)} differs from the uploaded file.", "Try again.")

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
