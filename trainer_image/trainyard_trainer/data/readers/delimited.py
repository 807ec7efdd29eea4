"""CSV and TSV: the header line names the fields; every later record is a row."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

from trainyard_trainer.data.readers.lines import LONGEST_ROW, decode, lines
from trainyard_trainer.data.rows import Columns, Row
from trainyard_trainer.errors import DataError, RowError

_QUOTING = 'Put texts with delimiters, quotes or line breaks in double quotes, and write a quote inside as "".'
_HEADER = "Write the field names in the first line."


def read(stream: BinaryIO, file: str, columns: Columns) -> Iterator[Row | RowError]:
    """Each row; the header is row 1, as in a spreadsheet.

    Raises:
        DataError: the header is not CSV or repeats a name.
    """
    csv.field_size_limit(LONGEST_ROW)
    source = _Lines(stream, file)
    header = next((line for line in source if line.strip()), None)
    if header is None:
        return
    delimiter = max((",", ";", "\t"), key=header.count)
    fields = _header(file, header, delimiter)
    records = csv.reader(source, strict=True, delimiter=delimiter)
    where = Row(file, 1, {})
    while True:
        where = Row(file, where.number + 1, {})
        try:
            record = next(records)
            if record:
                yield _row(where, fields, record, columns.nested)
        except StopIteration:
            return
        except csv.Error as error:
            problem = f"not CSV, at line {source.number} of the file: {error}"
            yield where.error(problem, _QUOTING, kind="NotCsv")
        except RowError as error:
            yield where.error(error.problem, error.advice, kind=error.kind, field=error.field)


class _Lines:
    """Decoded lines of a file; an undecodable line raises RowError, and iteration may continue after it."""

    def __init__(self, stream: BinaryIO, file: str) -> None:
        self._lines = lines(stream, file)
        self._file = file
        self.number = 0
        """Of the last line read, from 1."""

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        self.number, line = next(self._lines)
        if isinstance(line, RowError):
            raise line
        return decode(Row(self._file, self.number, {}), line)


def _header(file: str, line: str, delimiter: str) -> list[str]:
    try:
        fields = [field.strip() for field in next(csv.reader([line], strict=True, delimiter=delimiter))]
    except csv.Error as error:
        raise DataError(f"The header of {file} is not CSV: {error}.", _HEADER) from error
    repeated = sorted({field for field in fields if fields.count(field) > 1 and field})
    if repeated:
        raise DataError(f"The header of {file} names '{repeated[0][:40]}' twice.", "Give every column a unique name.")
    return fields


def _row(where: Row, fields: list[str], record: list[str], nested: frozenset[str]) -> Row:
    if len(record) != len(fields):
        problem = f"it has {len(record)} fields, but the header has {len(fields)}"
        raise where.error(problem, _QUOTING, kind="RaggedRow")
    values = dict(zip(fields, record, strict=True))
    return replace(
        where,
        values={field: _parsed(where, field, text) if field in nested else text for field, text in values.items()},
    )


def _parsed(where: Row, field: str, text: str) -> object:
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        problem = f"field '{field}' is not JSON"
        raise where.error(
            problem, f"Write '{field}' as a JSON list in one cell.", kind="NotJson", field=field
        ) from error
