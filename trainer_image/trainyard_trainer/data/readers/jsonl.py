"""JSON Lines: one JSON object per line; blank lines are no rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from trainyard_trainer.data.readers.lines import lines, parse_object
from trainyard_trainer.errors import RowError
from trainyard_trainer.tasks.text.formats.example import Row


def read(stream: BinaryIO, file: str) -> Iterator[Row | RowError]:
    """Each row, its number that of the line."""
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
