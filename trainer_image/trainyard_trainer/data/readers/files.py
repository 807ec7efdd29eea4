"""The rows of a file of any type."""

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
from trainyard_trainer.data.readers.file_type import HEAD_BYTES, ROW_FILE_TYPES, TYPE_NAMES, RowFileType, detect_type
from trainyard_trainer.data.rows import Columns, Row
from trainyard_trainer.errors import DataError, NotFoundError, RowError

_CHUNK = 1 << 20
_READERS: Mapping[RowFileType, Callable[[BinaryIO, str, Columns], Iterator[Row | RowError]]] = {
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
        DataError: the type of the file is not supported, or damage prevents reading the rest of it.
        NotFoundError: the file does not exist or cannot be read.
    """
    with _opened(path, name) as stream:
        file_type = detect_type(stream.read(HEAD_BYTES), name)
        stream.seek(0)
        if file_type in ROW_FILE_TYPES:
            yield from _READERS[file_type](stream, name, columns)  # type: ignore[index]
            return
    for member, content in archives.members(path, name):
        yield from _member_rows(content, member, columns)


def describe_type(path: Path, name: str) -> str:
    """The type of a file as messages name it, for example "CSV"; raises as `read_rows` does."""
    with _opened(path, name) as stream:
        return TYPE_NAMES[detect_type(stream.read(HEAD_BYTES), name)]


def digest_of(path: Path, name: str, poll: Callable[[], None]) -> str:
    """SHA-256 (hex) of a file; calls `poll` after each chunk and raises NotFoundError as `read_rows` does."""
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
    file_type = detect_type(content.peek(HEAD_BYTES)[:HEAD_BYTES], name.removesuffix(".gz"))
    if file_type != "parquet":
        yield from _READERS[file_type](content, name, columns)  # type: ignore[index]
        return
    with tempfile.TemporaryFile() as copy:  # Parquet needs a seekable file
        try:
            copyfileobj(content, copy)
        except OSError as error:
            problem = f"{name} cannot be extracted: {error.strerror}."
            raise DataError(problem, "Provide the Parquet file uncompressed.") from error
        copy.seek(0)
        yield from parquet.read(copy, name, columns)
