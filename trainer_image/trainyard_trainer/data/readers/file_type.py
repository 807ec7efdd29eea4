"""Detection of the type of a file by its first bytes, or by its name where these are ambiguous."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal, get_args

from trainyard_trainer.data.readers.lines import BYTE_ORDER_MARK
from trainyard_trainer.errors import DataError

RowFileType = Literal["jsonl", "json", "csv", "parquet"]
FileType = Literal[RowFileType, "zip", "tar", "gzip"]
ROW_FILE_TYPES: frozenset[str] = frozenset(get_args(RowFileType))
TYPE_NAMES: dict[FileType, str] = {
    "jsonl": "JSON Lines",
    "json": "a JSON array",
    "csv": "CSV",
    "parquet": "Parquet",
    "zip": "a zip archive",
    "tar": "a tar archive",
    "gzip": "gzip",
}
HEAD_BYTES = 512
"""Bytes that detection needs: the first block of a tar archive."""
ROW_SUFFIXES: dict[str, RowFileType] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
_MAGIC: tuple[tuple[bytes, FileType], ...] = (
    (b"PAR1", "parquet"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "gzip"),
)
_EXTRACT = "Extract it, or compress it as .zip, .tar.gz or .gz."
_REFUSED: tuple[tuple[bytes, str, str], ...] = (
    (b"\xff\xfe", "UTF-16 text", "Save it as UTF-8 text."),
    (b"\xfe\xff", "UTF-16 text", "Save it as UTF-8 text."),
    (b"BZh", "compressed by bzip2", _EXTRACT),
    (b"\xfd7zXZ", "compressed by xz", _EXTRACT),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", _EXTRACT),
    (b"7z\xbc\xaf", "a 7z archive", _EXTRACT),
    (b"Rar!", "a rar archive", _EXTRACT),
    (b"PARE", "an encrypted Parquet file", "Write it without encryption."),
    (b"ARROW1", "an Arrow file", "Write it as Parquet or JSON Lines."),
    (b"\xd0\xcf\x11\xe0", "an old Office document", "Save the table as CSV (UTF-8)."),
    (b"SQLite format 3", "a SQLite database", "Export the table as CSV or JSON Lines."),
    (b"\x80\x04", "a pickle, which is never loaded because it can run code", "Write it as Parquet or JSON Lines."),
    (b"\x80\x05", "a pickle, which is never loaded because it can run code", "Write it as Parquet or JSON Lines."),
)


def detect_type(head: bytes, name: str) -> FileType:
    """The type of a file.

    Args:
        head: Its first `HEAD_BYTES` bytes, which take precedence over the name.
        name: Its name.

    Raises:
        DataError: the type is not supported.
    """
    for magic, what, remedy in _REFUSED:
        if head.startswith(magic):
            raise DataError(f"{name} is {what}.", remedy)
    for magic, file_type in _MAGIC:
        if head.startswith(magic):
            return file_type
    if head[257:262] == b"ustar":
        return "tar"
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".parquet" and head:
        problem = f"{name} is not a Parquet file: its first bytes differ."
        raise DataError(problem, "Copy it again, or give it the extension of its type.")
    text = head.removeprefix(BYTE_ORDER_MARK).lstrip()
    if text.startswith(b"["):
        return "json"
    return "jsonl" if text.startswith(b"{") else ROW_SUFFIXES.get(suffix, "jsonl")
