"""Which kind of file a dataset is, by its first bytes and, where these say nothing, by its name."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal, get_args

from trainyard_trainer.data.readers.lines import BYTE_ORDER_MARK
from trainyard_trainer.errors import DataError

RowKind = Literal["jsonl", "json", "csv", "parquet"]
Kind = Literal[RowKind, "zip", "tar", "gzip"]
ROW_KINDS: frozenset[str] = frozenset(get_args(RowKind))
NAMES: dict[Kind, str] = {
    "jsonl": "JSON Lines",
    "json": "a JSON array",
    "csv": "CSV",
    "parquet": "Parquet",
    "zip": "a zip archive",
    "tar": "a tar archive",
    "gzip": "gzip",
}
HEAD = 512
"""Bytes to look at: a tar archive names itself in its first block."""
ROW_SUFFIXES: dict[str, RowKind] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
_MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (b"PAR1", "parquet"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "gzip"),
)
_UNPACK = "Unpack it, or pack it as .zip, .tar.gz or .gz."
_REFUSED: tuple[tuple[bytes, str, str], ...] = (
    (b"\xff\xfe", "UTF-16 text", "Save it as UTF-8 text."),
    (b"\xfe\xff", "UTF-16 text", "Save it as UTF-8 text."),
    (b"BZh", "compressed by bzip2", _UNPACK),
    (b"\xfd7zXZ", "compressed by xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", _UNPACK),
    (b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (b"Rar!", "a rar archive", _UNPACK),
    (b"PARE", "an encrypted Parquet file", "Write it without encryption."),
    (b"ARROW1", "an Arrow file", "Write it as Parquet or JSON Lines."),
    (b"\xd0\xcf\x11\xe0", "an old Office document", "Save the table as CSV (UTF-8)."),
    (b"SQLite format 3", "a SQLite database", "Export the table as CSV or JSON Lines."),
    (b"\x80\x04", "a pickle, which is never loaded: it can run code", "Write it as Parquet or JSON Lines."),
    (b"\x80\x05", "a pickle, which is never loaded: it can run code", "Write it as Parquet or JSON Lines."),
)


def kind_of_file(head: bytes, name: str) -> Kind:
    """The kind of a file.

    Args:
        head: Its first `HEAD` bytes.
        name: Its name; the content goes before it.

    Raises:
        DataError: it is of a kind that is not read.
    """
    for magic, what, remedy in _REFUSED:
        if head.startswith(magic):
            raise DataError(f"{name} is {what}.", remedy)
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar":
        return "tar"
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".parquet" and head:
        raise DataError(f"{name} is not a Parquet file: it begins otherwise.", "Copy it again, or name it by its kind.")
    text = head.removeprefix(BYTE_ORDER_MARK).lstrip()
    if text.startswith(b"["):
        return "json"
    return "jsonl" if text.startswith(b"{") else ROW_SUFFIXES.get(suffix, "jsonl")
