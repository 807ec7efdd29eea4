"""Datasets in archives, which are hostile until shown otherwise.

Nothing is unpacked to a disk: members are read as streams, so a name can lead nowhere, and links and devices, which
are refused all the same, would have nothing to point at. What is read is counted, whatever the archive declares.
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

from trainyard_trainer.data.readers.container import HEAD, ROW_SUFFIXES, kind_of_file
from trainyard_trainer.errors import DataError, TrainerError

_ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"})
_FAULTS = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, struct.error, NotImplementedError,
    OverflowError, ValueError,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an archive may hold."""

    total_bytes: int = 64 << 30
    """Unpacked bytes of all members."""
    members: int = 10_000
    ratio: int = 200
    """Unpacked to packed bytes, once more than `ratio_from` bytes were unpacked; text packs 3 to 20 to one."""
    ratio_from: int = 64 << 20


LIMITS = Limits()


class _Meter:
    """Counts what comes out of an archive."""

    def __init__(self, name: str, packed: int, limits: Limits) -> None:
        self._name = name
        self._packed = packed
        self._limits = limits
        self._unpacked = 0
        self._members = 0

    def count_bytes(self, number: int) -> None:
        """Raises DataError beyond the limits."""
        self._unpacked += number
        if self._unpacked > self._limits.total_bytes:
            problem = f"{self._name} unpacks to more than {self._limits.total_bytes >> 20:,} MiB."
            raise DataError(problem, "Give the rows unpacked, or in several datasets.")
        if self._unpacked > max(self._limits.ratio_from, self._limits.ratio * self._packed):
            problem = f"{self._name} unpacks to more than {self._limits.ratio} times its size, as no real text does."
            raise DataError(problem, "Give the rows unpacked.")

    def count_member(self) -> None:
        """Raises DataError beyond the limits."""
        self._members += 1
        if self._members > self._limits.members:
            problem = f"{self._name} has more than {self._limits.members:,} members."
            raise DataError(problem, "Join the rows into fewer files.")


class _Metered(io.RawIOBase):
    """A stream whose bytes are counted and whose faults are sentences."""

    def __init__(self, stream: IO[bytes], meter: _Meter, name: str) -> None:
        self._stream = stream
        self._meter = meter
        self._name = name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        with _faults(self._name):
            data = self._stream.read(len(buffer))
        self._meter.count_bytes(len(data))
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def _faults(name: str) -> Iterator[None]:
    try:
        yield
    except TrainerError:
        raise
    except (*_FAULTS, gzip.BadGzipFile) as error:
        raise _damaged(name, str(error).rstrip(".") or type(error).__name__) from error
    except OSError as error:
        if error.errno is None:  # of a decompressor: bz2, which a damaged zip may name, has no error of its own
            raise _damaged(name, str(error).rstrip(".")) from error
        if error.errno != errno.EINVAL:
            raise  # a fault of the disk
        raise _damaged(name, "a member begins before the file does") from error


def _damaged(name: str, why: str) -> DataError:
    return DataError(f"{name} is truncated or damaged: {why}.", "Pack it anew.")


def members(path: Path, name: str, limits: Limits = LIMITS) -> Iterator[tuple[str, BinaryIO]]:
    """Name and content of each file of rows in a .zip, .tar, .tar.gz or .gz, in the archive's order.

    Files that are no rows (a README, a licence) are passed over. Each stream is good until the next is asked for.

    Args:
        path: The archive.
        name: How messages call it.
        limits: What it may hold.

    Raises:
        DataError: it is damaged, encrypted, too big, or holds a link, a device, an archive, an impossible name, or no
            file of rows.
    """
    meter = _Meter(name, path.stat().st_size, limits)
    with path.open("rb") as file:
        kind = kind_of_file(file.read(HEAD), name)
        file.seek(0)
        if kind == "zip":
            found = _zip_members(file, name, meter)
        elif kind == "tar":
            found = _tar_members(file, name, meter)
        else:
            found = _gzip_members(file, name, meter)
        some = False
        for member in found:
            some = True
            yield member
    if not some:
        suffixes = ", ".join(ROW_SUFFIXES)
        raise DataError(f"{name} holds no file of rows.", f"Put files into it that end in one of {suffixes}.")


def _gzip_members(file: BinaryIO, name: str, meter: _Meter) -> Iterator[tuple[str, BinaryIO]]:
    unpacked = _buffered(cast("IO[bytes]", gzip.GzipFile(fileobj=file)), meter, name)
    inner = name.removesuffix(".gz")
    kind = kind_of_file(unpacked.peek(HEAD)[:HEAD], inner)
    if kind == "tar":
        # The meter has counted what the tar is read from; its members are parts of that.
        yield from _tar_members(cast("BinaryIO", unpacked), name, meter)
    elif kind in {"zip", "gzip"}:
        raise _nested(name, inner)
    else:
        yield name, cast("BinaryIO", unpacked)


def _zip_members(file: BinaryIO, name: str, meter: _Meter) -> Iterator[tuple[str, BinaryIO]]:
    with _faults(name):
        archive = zipfile.ZipFile(file)
    for entry in archive.infolist():
        meter.count_member()
        mode = entry.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _no_file(name, entry.filename)
        if not entry.filename:
            raise _damaged(name, "a member has no name")
        if entry.is_dir() or not _holds_rows(name, entry.filename):
            continue
        if entry.flag_bits & 1:
            raise DataError(f"{name} is encrypted.", "Pack it without a password.")
        with _faults(name):
            stream = archive.open(entry)
        yield f"{name}/{entry.filename}", _rows_of(name, entry.filename, stream, meter)


def _tar_members(file: BinaryIO, name: str, meter: _Meter) -> Iterator[tuple[str, BinaryIO]]:
    with _faults(name):
        archive = tarfile.open(fileobj=file, mode="r|")  # noqa: SIM115 - closes with the file it reads
    while True:
        with _faults(name):
            entry = archive.next()
            archive.members.clear()  # type: ignore[attr-defined]  # a stream is never gone back in
        if entry is None:
            return
        meter.count_member()
        if not (entry.isdir() or entry.isreg()) or entry.issparse():
            raise _no_file(name, entry.name)
        if entry.isdir() or not _holds_rows(name, entry.name):
            continue
        with _faults(name):
            stream = archive.extractfile(entry)
        assert stream is not None
        yield f"{name}/{entry.name}", _rows_of(name, entry.name, stream, meter)


def _buffered(stream: IO[bytes], meter: _Meter, name: str) -> io.BufferedReader:
    return io.BufferedReader(_Metered(stream, meter, name), 1 << 16)


def _rows_of(archive: str, member: str, stream: IO[bytes], meter: _Meter) -> BinaryIO:
    buffered = _buffered(stream, meter, archive)
    if kind_of_file(buffered.peek(HEAD)[:HEAD], f"{archive}/{member}") in {"zip", "tar", "gzip"}:
        raise _nested(archive, member)
    return cast("BinaryIO", buffered)


def _holds_rows(archive: str, member: str) -> bool:
    """Whether a member's name is that of a file of rows.

    Raises:
        DataError: no honest archive has such a name, or it is that of an archive.
    """
    path = PurePosixPath(member)
    leaves = path.is_absolute() or ".." in path.parts or any(part[1:2] == ":" for part in path.parts)
    if leaves or "\\" in member or not member.isprintable():
        problem = f"{archive} holds a member that would leave the folder it is unpacked in: {member[:80]!a}."
        raise DataError(problem, "Pack it anew, with relative names.")
    if path.suffix.lower() in _ARCHIVES:
        raise _nested(archive, member)
    is_resource_fork = path.name.startswith("._") or "__MACOSX" in path.parts
    return path.suffix.lower() in ROW_SUFFIXES and not is_resource_fork


def _nested(archive: str, member: str) -> DataError:
    return DataError(f"{archive} holds another archive, {member[:80]!a}.", "Pack the files of rows themselves.")


def _no_file(archive: str, member: str) -> DataError:
    problem = f"{archive} holds a link or a device, {member[:80]!a}."
    return DataError(problem, "Pack plain files and folders only.")
