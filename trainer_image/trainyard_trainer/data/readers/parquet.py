"""Parquet, read in small batches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, BinaryIO

from trainyard_trainer.data.readers.lines import LONGEST_ROW, too_long
from trainyard_trainer.data.rows import Columns, Row
from trainyard_trainer.errors import DataError, RowError, first_line

_MAGIC = b"PAR1"
_BATCH_ROWS = 256
_BATCH_BYTES = 256 << 20
"""A dictionary-encoded text is stored once for many rows, but a batch holds it once per row."""
_BUFFER = 1 << 20


def read(stream: BinaryIO, file: str, columns: Columns) -> Iterator[Row | RowError]:
    """Each row, numbered from 1, with only the columns in `columns`.

    Args:
        stream: A seekable stream.
        file: Its name in messages.
        columns: The columns to read; every column if the file has none of them.

    Raises:
        DataError: the file is truncated, damaged or encrypted.
    """
    size = stream.seek(0, os.SEEK_END)
    if size == 0:
        raise DataError(f"{file} is empty.", "Copy or write it again.")
    stream.seek(max(0, size - len(_MAGIC)))
    if stream.read() != _MAGIC:
        raise _incomplete(file, "its end is missing.")
    stream.seek(0)
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(stream, pre_buffer=False, buffer_size=_BUFFER)
        names = [name for name in table.schema_arrow.names if name in columns.names]
        unread = tuple(name for name in table.schema_arrow.names if name not in columns.names) if names else ()
        nested = [name for name in names if pa.types.is_nested(table.schema_arrow.field(name).type)]
        number = 0
        for batch in table.iter_batches(_batch_rows(table.metadata), columns=names or None, use_threads=False):
            for values in batch.to_pylist():
                number += 1
                values.update({name: _without_nulls(values[name]) for name in nested})
                yield too_long(file, number) if _size(values) > LONGEST_ROW else Row(file, number, values, unread)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _incomplete(file, first_line(error)) from error


def _without_nulls(value: Any) -> Any:
    """A nested value without the null fields of its objects: a column gives every object every field."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list) and value and isinstance(value[0], dict | list):
        return [_without_nulls(item) for item in value]
    return value


def _incomplete(file: str, why: str) -> DataError:
    return DataError(f"{file} is not a complete Parquet file: {why}", "Copy or write it again.")


def _batch_rows(metadata: Any) -> int:
    """Rows per batch such that a batch fits into memory even if every row has the longest text of its column."""
    # Row group sizes, not column sizes: reading a column's entry from damaged metadata ends the process.
    sizes: list[int] = [metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)]
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max([1, *sizes])))


def _size(value: Any) -> int:
    """Characters and bytes in a value."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 0
