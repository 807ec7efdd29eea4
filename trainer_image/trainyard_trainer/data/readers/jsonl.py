"""JSON Lines: one JSON object per line; blank lines are ignored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from trainyard_trainer.data.readers.lines import lines, parse_object
from trainyard_trainer.data.rows import Columns, Row
from trainyard_trainer.errors import RowError


def read(stream: BinaryIO, file: str, _columns: Columns) -> Iterator[Row | RowError]:
    """Each row, numbered by its line."""
    for number, line in lines(stream, file):
        if isinstance(line, RowError):
            yield line
        elif line.strip():
            yield _parsed(Row(file, number, {}), line)


def _parsed(where: Row, line: bytes) -> Row | RowError:
    try:
        return parse_object(where, line)
    except RowError as error:
        return error
