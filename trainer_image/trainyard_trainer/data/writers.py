"""Writing of row files: whole or not at all, and never over another file unless asked to."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trainyard_trainer.checkpoint.files import TEMPORARY_PREFIX, Files, storage_errors
from trainyard_trainer.errors import ConfigurationError, NotFoundError
from trainyard_trainer.tasks.text.convert import Target

_BATCH_ROWS = 1024
WriteRow = Callable[[Mapping[str, object]], None]


@contextmanager
def row_writer(path: Path, *, force: bool, target: Target | None = None) -> Iterator[WriteRow]:
    """A function that writes one row; the file appears when the block ends without an error.

    Args:
        path: The file, .jsonl, or .parquet where `target` is given.
        force: Whether a file that is there may be replaced.
        target: Format of the rows.

    Raises:
        ConfigurationError: the file exists and `force` is false, or its name has another ending.
        NotFoundError: its directory does not exist.
        StorageError: the volume is full or read-only.
    """
    check_output(path, force=force, parquet=target is not None)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}.{os.getpid()}")
    try:
        with storage_errors(path.parent):
            writer = _parquet(temporary, target) if path.suffix == ".parquet" and target else _jsonl(temporary)
            with writer as write:
                yield write
            check_output(path, force=force, parquet=target is not None)
            temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def check_output(path: Path, *, force: bool, parquet: bool) -> None:
    """Refuse before any work what could not be written after it; raises as `row_writer` does."""
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
def _parquet(path: Path, target: Target) -> Iterator[WriteRow]:
    import pyarrow as pa
    from pyarrow import parquet

    schema = _schema(pa, target)
    batch: list[Mapping[str, object]] = []
    with path.open("wb") as file, parquet.ParquetWriter(file, schema) as table:

        def write(row: Mapping[str, object]) -> None:
            batch.append(row)
            if len(batch) == _BATCH_ROWS:
                flush()

        def flush() -> None:
            table.write_table(pa.Table.from_pylist(batch, schema=schema))
            batch.clear()

        yield write
        flush()
    Files().fsync(path)


def _schema(pa: Any, target: Target) -> Any:
    """One for all rows of a format: a table cannot be widened when a later row has a field more."""
    text = pa.string()
    if target in {"messages", "sharegpt"}:
        names = ("role", "content") if target == "messages" else ("from", "value")
        turn = pa.struct([*((name, text) for name in names), ("loss", pa.bool_())])
        column = "messages" if target == "messages" else "conversations"
        return pa.schema([(column, pa.list_(turn)), ("trainOn", text)])
    names = ("instruction", "output") if target == "alpaca" else ("query", "response")
    history = ("history", pa.list_(pa.list_(text)))
    return pa.schema([*((name, text) for name in names), history, ("system", text), ("trainOn", text)])
