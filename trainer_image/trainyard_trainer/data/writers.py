"""Atomic writing of row files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

from trainyard_trainer.checkpoint.files import TEMPORARY_PREFIX, Files, storage_errors
from trainyard_trainer.errors import ConfigurationError, NotFoundError

_BATCH_ROWS = 1024
WriteRow = Callable[[Mapping[str, object]], None]
ColumnType: TypeAlias = "type[str | bool] | list[ColumnType] | dict[str, ColumnType]"
"""Type of a Parquet column: text, true or false, a list of one type, an object.

A column of text holds other values as JSON text.
"""


@contextmanager
def row_writer(path: Path, *, force: bool, schema: Mapping[str, ColumnType] | None = None) -> Iterator[WriteRow]:
    """A function that writes one row; the file appears when the block ends without an error.

    Args:
        path: The file: .jsonl, or .parquet if `schema` is given.
        force: Whether an existing file is replaced.
        schema: Columns of every row: a Parquet file cannot gain one after its first batch.

    Raises:
        ConfigurationError: the file exists and `force` is false, or its name has another ending.
        NotFoundError: its directory does not exist.
        StorageError: the volume is full or read-only.
    """
    check_output(path, force=force, parquet=schema is not None)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}.{os.getpid()}")
    try:
        with storage_errors(path.parent):
            writer = _parquet(temporary, schema) if path.suffix == ".parquet" and schema else _jsonl(temporary)
            with writer as write:
                yield write
            check_output(path, force=force, parquet=schema is not None)
            temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def check_output(path: Path, *, force: bool, parquet: bool) -> None:
    """Refuse an output that `row_writer` could not write; raises as it does."""
    suffixes = [".jsonl", ".parquet"] if parquet else [".jsonl"]
    if path.suffix not in suffixes:
        raise ConfigurationError(f"{path} ends in '{path.suffix}'.", f"Name an output {' or '.join(suffixes)}.")
    if not path.parent.is_dir():
        raise NotFoundError(f"There is no directory {path.parent}.", "Create it, or name another output.")
    if path.exists() and not force:
        raise ConfigurationError(f"{path} exists already.", "Name another output, or replace it with --force.")


@contextmanager
def _jsonl(path: Path) -> Iterator[WriteRow]:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        yield lambda row: print(json.dumps(row, ensure_ascii=False, default=str), file=file)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _parquet(path: Path, columns: Mapping[str, ColumnType]) -> Iterator[WriteRow]:
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([(name, _arrow_type(pa, column)) for name, column in columns.items()])
    batch: list[Mapping[str, object]] = []
    with path.open("wb") as file, parquet.ParquetWriter(file, schema) as table:

        def write(row: Mapping[str, object]) -> None:
            batch.append({name: _as_text(value) if columns.get(name) is str else value for name, value in row.items()})
            if len(batch) == _BATCH_ROWS:
                flush()

        def flush() -> None:
            table.write_table(pa.Table.from_pylist(batch, schema=schema))
            batch.clear()

        yield write
        flush()
    Files().fsync(path)


def _as_text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _arrow_type(pa: Any, column: ColumnType) -> Any:
    if isinstance(column, dict):
        return pa.struct([(name, _arrow_type(pa, field)) for name, field in column.items()])
    if isinstance(column, list):
        return pa.list_(_arrow_type(pa, column[0]))
    return pa.bool_() if column is bool else pa.string()
