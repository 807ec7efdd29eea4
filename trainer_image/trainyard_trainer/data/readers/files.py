"""The rows of a file of any kind."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfileobj
from typing import Any, BinaryIO

from trainyard_trainer.data import archives
from trainyard_trainer.data.readers import delimited, json_array, jsonl, parquet
from trainyard_trainer.data.readers.container import HEAD, NAMES, ROW_KINDS, Kind, RowKind, kind_of_file
from trainyard_trainer.data.rows import Columns, Row
from trainyard_trainer.errors import DataError, NotFoundError, RowError

_CHUNK = 1 << 20
_READERS: Mapping[RowKind, Callable[[BinaryIO, str, Columns], Iterator[Row | RowError]]] = {
    "jsonl": jsonl.read,
    "json": json_array.read,
    "csv": delimited.read,
    "parquet": parquet.read,
}


def read_rows(path: Path, name: str, columns: Columns) -> Iterator[Row | RowError]:
    """Each row of a file or of the files in an archive; an error in place of each unreadable row.

    Args:
        path: The file.
        name: Its name in messages.
        columns: The columns the task reads from tables.

    Raises:
        DataError: the file is of no kind that is read, or damaged so that nothing behind can be read.
        NotFoundError: there is no such file, or it cannot be read.
    """
    with _opened(path, name) as stream:
        kind = kind_of_file(stream.read(HEAD), name)
        stream.seek(0)
        if kind in ROW_KINDS:
            yield from _READERS[kind](stream, name, columns)  # type: ignore[index]
            return
    for member, content in archives.members(path, name):
        yield from _member_rows(content, member, columns)


def kind_of_path(path: Path, name: str) -> str:
    """What kind of file it is, in words; raises as `read_rows` does."""
    with _opened(path, name) as stream:
        kind: Kind = kind_of_file(stream.read(HEAD), name)
    return NAMES[kind]


def digest_of(path: Path, name: str, poll: Callable[[], None]) -> str:
    """SHA-256 (hex) of a file, calling `poll` again and again; raises NotFoundError as `read_rows` does."""
    digest = hashlib.sha256()
    with _opened(path, name) as stream:
        while chunk := stream.read(_CHUNK):
            poll()
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _opened(path: Path, name: str) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as stream:
            yield stream
    except FileNotFoundError as error:
        raise NotFoundError(f"There is no file {name}.", "Check spec.dataset and its validation.") from error
    except OSError as error:
        raise NotFoundError(f"{name} cannot be read: {error.strerror}.", "Name a readable file.") from error


def _member_rows(content: Any, name: str, columns: Columns) -> Iterator[Row | RowError]:
    kind = kind_of_file(content.peek(HEAD)[:HEAD], name.removesuffix(".gz"))
    if kind != "parquet":
        yield from _READERS[kind](content, name, columns)  # type: ignore[index]
        return
    with tempfile.TemporaryFile() as copy:  # Parquet is read from its end
        try:
            copyfileobj(content, copy)
        except OSError as error:
            problem = f"{name} cannot be unpacked: {error.strerror}."
            raise DataError(problem, "Give the Parquet file unpacked.") from error
        copy.seek(0)
        yield from parquet.read(copy, name, columns)
