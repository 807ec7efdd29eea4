"""Datasets in archives, which are treated as untrusted.

Members are read as streams and never extracted to disk, so their names cannot write outside a folder. Limits apply to
the bytes that are read, not to the sizes that the archive declares.
"""

from __future__ import annotations

import errno
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

from trainyard_trainer.data.readers.file_type import HEAD_BYTES, ROW_SUFFIXES, detect_type
from trainyard_trainer.errors import DataError, TrainerError

_ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"})
_LIBRARY_ERRORS = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, struct.error, NotImplementedError,
    OverflowError, ValueError,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Upper bounds of an archive's content."""

    total_bytes: int = 64 << 30
    """Decompressed bytes of all members."""
    members: int = 10_000
    ratio: int = 200
    """Decompressed to compressed bytes; text reaches 3 to 20."""
    ratio_from: int = 64 << 20
    """Decompressed bytes below which `ratio` is not checked."""


LIMITS = Limits()


class _Meter:
    """Counts the content of an archive against its limits."""

    def __init__(self, name: str, compressed_bytes: int, limits: Limits) -> None:
        self._name = name
        self._compressed_bytes = compressed_bytes
        self._limits = limits
        self._bytes = 0
        self._members = 0

    def count_bytes(self, number: int) -> None:
        """Raises DataError beyond the limits."""
        self._bytes += number
        if self._bytes > self._limits.total_bytes:
            problem = f"{self._name} expands to more than {self._limits.total_bytes >> 20:,} MiB."
            raise DataError(problem, "Provide the rows uncompressed, or in several datasets.")
        if self._bytes > max(self._limits.ratio_from, self._limits.ratio * self._compressed_bytes):
            problem = f"{self._name} expands to more than {self._limits.ratio} times its size."
            raise DataError(problem, "Provide the rows uncompressed.")

    def count_member(self) -> None:
        """Raises DataError beyond the limits."""
        self._members += 1
        if self._members > self._limits.members:
            problem = f"{self._name} has more than {self._limits.members:,} members."
            raise DataError(problem, "Merge the rows into fewer files.")


class _Metered(io.RawIOBase):
    """A stream that counts its bytes and raises DataError for damage."""

    def __init__(self, stream: IO[bytes], meter: _Meter, name: str) -> None:
        self._stream = stream
        self._meter = meter
        self._name = name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        with _as_data_errors(self._name):
            data = self._stream.read(len(buffer))
        self._meter.count_bytes(len(data))
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def _as_data_errors(name: str) -> Iterator[None]:
    try:
        yield
    except TrainerError:
        raise
    except (*_LIBRARY_ERRORS, gzip.BadGzipFile) as error:
        raise _damaged(name, str(error).rstrip(".") or type(error).__name__) from error
    except OSError as error:
        if error.errno is None:  # raised by bz2, which a damaged zip may name
            raise _damaged(name, str(error).rstrip(".")) from error
        if error.errno != errno.EINVAL:
            raise  # an error of the disk
        raise _damaged(name, "a member starts before the file") from error


def _damaged(name: str, why: str) -> DataError:
    return DataError(f"{name} is truncated or damaged: {why}.", "Create the archive again.")


def members(path: Path, name: str, limits: Limits = LIMITS) -> Iterator[tuple[str, BinaryIO]]:
    """Name and content of each file of rows in a .zip, .tar, .tar.gz or .gz, in the archive's order.

    Other files (a README, a licence) are skipped. Each stream is valid until the next one is requested.

    Args:
        path: The archive.
        name: Its name in messages.
        limits: Upper bounds of its content.

    Raises:
        DataError: it is damaged, encrypted or too large, it contains a link, a device, an archive or an unsafe path,
            or it has no file of rows.
    """
    meter = _Meter(name, path.stat().st_size, limits)
    with path.open("rb") as file:
        file_type = detect_type(file.read(HEAD_BYTES), name)
        file.seek(0)
        if file_type == "zip":
            found = _zip_members(file, name, meter)
        elif file_type == "tar":
            found = _tar_members(file, name, meter)
        else:
            found = _gzip_members(file, name, meter)
        some = False
        for member in found:
            some = True
            yield member
    if not some:
        suffixes = ", ".join(ROW_SUFFIXES)
        raise DataError(f"{name} contains no file with rows.", f"Add files that end in one of {suffixes}.")


def _gzip_members(file: BinaryIO, name: str, meter: _Meter) -> Iterator[tuple[str, BinaryIO]]:
    content = _buffered(cast("IO[bytes]", gzip.GzipFile(fileobj=file)), meter, name)
    inner = name.removesuffix(".gz")
    file_type = detect_type(content.peek(HEAD_BYTES)[:HEAD_BYTES], inner)
    if file_type == "tar":
        # The same meter counts the tar and its members, which doubles their bytes.
        yield from _tar_members(cast("BinaryIO", content), name, meter)
    elif file_type in {"zip", "gzip"}:
        raise _nested(name, inner)
    else:
        yield name, cast("BinaryIO", content)


def _zip_members(file: BinaryIO, name: str, meter: _Meter) -> Iterator[tuple[str, BinaryIO]]:
    with _as_data_errors(name):
        archive = zipfile.ZipFile(file)
    for entry in archive.infolist():
        meter.count_member()
        mode = entry.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _not_a_file(name, entry.filename)
        if not entry.filename:
            raise _damaged(name, "a member has no name")
        if entry.is_dir() or not _holds_rows(name, entry.filename):
            continue
        if entry.flag_bits & 1:
            raise DataError(f"{name} is encrypted.", "Create the archive without a password.")
        with _as_data_errors(name):
            stream = archive.open(entry)
        yield f"{name}/{entry.filename}", _open_member(name, entry.filename, stream, meter)


def _tar_members(file: BinaryIO, name: str, meter: _Meter) -> Iterator[tuple[str, BinaryIO]]:
    with _as_data_errors(name):
        archive = tarfile.open(fileobj=file, mode="r|")  # noqa: SIM115 - closes with the file it reads
    while True:
        with _as_data_errors(name):
            entry = archive.next()
            archive.members.clear()  # type: ignore[attr-defined]  # a stream cannot seek back to them
        if entry is None:
            return
        meter.count_member()
        if not (entry.isdir() or entry.isreg()) or entry.issparse():
            raise _not_a_file(name, entry.name)
        if entry.isdir() or not _holds_rows(name, entry.name):
            continue
        with _as_data_errors(name):
            stream = archive.extractfile(entry)
        assert stream is not None
        yield f"{name}/{entry.name}", _open_member(name, entry.name, stream, meter)


def _buffered(stream: IO[bytes], meter: _Meter, name: str) -> io.BufferedReader:
    return io.BufferedReader(_Metered(stream, meter, name), 1 << 16)


def _open_member(archive: str, member: str, stream: IO[bytes], meter: _Meter) -> BinaryIO:
    buffered = _buffered(stream, meter, archive)
    if detect_type(buffered.peek(HEAD_BYTES)[:HEAD_BYTES], f"{archive}/{member}") in {"zip", "tar", "gzip"}:
        raise _nested(archive, member)
    return cast("BinaryIO", buffered)


def _holds_rows(archive: str, member: str) -> bool:
    """Whether the name of a member is that of a file of rows.

    Raises:
        DataError: its path is unsafe, or it names an archive.
    """
    path = PurePosixPath(member)
    leaves = path.is_absolute() or ".." in path.parts or any(part[1:2] == ":" for part in path.parts)
    if leaves or "\\" in member or not member.isprintable():
        problem = f"{archive} contains a member whose path leaves the extraction folder: {member[:80]!a}."
        raise DataError(problem, "Create the archive again, with relative paths.")
    if path.suffix.lower() in _ARCHIVES:
        raise _nested(archive, member)
    is_resource_fork = path.name.startswith("._") or "__MACOSX" in path.parts
    return path.suffix.lower() in ROW_SUFFIXES and not is_resource_fork


def _nested(archive: str, member: str) -> DataError:
    return DataError(f"{archive} contains another archive, {member[:80]!a}.", "Archive the files of rows directly.")


def _not_a_file(archive: str, member: str) -> DataError:
    problem = f"{archive} contains a link or a device, {member[:80]!a}."
    return DataError(problem, "Archive regular files and folders only.")
