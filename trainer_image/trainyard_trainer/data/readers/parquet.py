"""Parquet, read in small batches of its row groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, BinaryIO

from trainyard_trainer.data.formats.detect import FIELDS
from trainyard_trainer.data.formats.example import Row
from trainyard_trainer.data.readers.lines import LONGEST_ROW, too_long
from trainyard_trainer.errors import DataError, RowError

_MAGIC = b"PAR1"
_BATCH_ROWS = 256
_BUFFER = 1 << 20


def read(stream: BinaryIO, file: str) -> Iterator[Row | RowError]:
    """Each row, numbered from 1; only the columns some format reads are taken from the disk.

    Args:
        stream: A seekable stream.
        file: How messages call it.

    Raises:
        DataError: the file is truncated, damaged or encrypted.
    """
    stream.seek(-len(_MAGIC), os.SEEK_END)
    if stream.read() != _MAGIC:
        raise _incomplete(file, "it does not end as one, so it was cut off.")
    stream.seek(0)
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(stream, pre_buffer=False, buffer_size=_BUFFER)
        columns = [name for name in table.schema_arrow.names if name in FIELDS]
        number = 0
        for batch in table.iter_batches(_BATCH_ROWS, columns=columns or None, use_threads=False):
            for values in batch.to_pylist():
                number += 1
                yield too_long(file, number) if _size(values) > LONGEST_ROW else Row(file, number, values)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _incomplete(file, _first_line(error)) from error


def _incomplete(file: str, why: str) -> DataError:
    return DataError(f"{file} is not a complete Parquet file: {why}", "Copy it again, or write it anew.")


def _size(values: dict[str, Any]) -> int:
    """Characters of the row's own texts; nested ones were bounded by the batch in memory already."""
    return sum(len(value) for value in values.values() if isinstance(value, str))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0][:200].rstrip(" .:") if lines else type(error).__name__) + "."
