"""Lines of bounded length and JSON objects, for the readers of text files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO

from trainyard_trainer.data.rows import Row, type_name
from trainyard_trainer.errors import RowError

LONGEST_ROW = 32 << 20
"""Bytes; several times a sequence of the largest `maxLength`. It bounds the memory of a reader."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_CHUNK = 1 << 20
_ONE_PER_LINE = "Write JSON Lines: one JSON object per line."


def lines(stream: BinaryIO, file: str) -> Iterator[tuple[int, bytes | RowError]]:
    """Each line with its number from 1; an error in place of one longer than `LONGEST_ROW`."""
    number = 0
    while line := stream.readline(LONGEST_ROW + 1):
        number += 1
        if len(line) > LONGEST_ROW:
            _skip_rest(stream, line)
            yield number, too_long(file, number)
        else:
            yield number, line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line


def _skip_rest(stream: BinaryIO, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = stream.readline(_CHUNK)


def too_long(file: str, number: int) -> RowError:
    """The error of a row longer than `LONGEST_ROW`."""
    problem = f"it is longer than {LONGEST_ROW >> 20} MiB"
    return Row(file, number, {}).error(problem, "Split it into shorter rows.", kind="TooLong")


def decode(where: Row, data: bytes) -> str:
    """Decode a row.

    Raises:
        RowError: it is not UTF-8.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        problem = f"byte {error.start + 1} of the row is not UTF-8"
        raise where.error(problem, "Save the file as UTF-8 text.", kind="NotUtf8") from error


def parse_object(where: Row, data: bytes) -> Row:
    """Parse the JSON object in `data`.

    Raises:
        RowError: it is not one.
    """
    text = decode(where, data)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise _not_json(where, data, error) from error
    except (ValueError, RecursionError) as error:
        remedy = "Write rows without numbers of thousands of digits and without thousands of nested levels."
        raise where.error("its JSON has a number too long or too many nested levels", remedy, kind="NotJson") from error
    if not isinstance(value, dict):
        problem = f"the row must be an object but is {type_name(value)}"
        raise where.error(problem, _ONE_PER_LINE, kind="WrongType")
    return Row(where.file, where.number, value)


def _not_json(where: Row, data: bytes, error: json.JSONDecodeError) -> RowError:
    """The error of a row that is not JSON, with the remedy for common mistakes."""
    problem, remedy = f"not JSON at column {error.colno}: {error.msg}", _ONE_PER_LINE
    if error.msg == "Extra data":
        problem = f"not JSON: there is text after the object, at column {error.colno}"
        remedy = f"{_ONE_PER_LINE} Put no comma after it."
    elif data.strip() == b"{":
        remedy = f"{_ONE_PER_LINE} Do not spread an object over several lines."
    elif error.lineno > 1:
        problem = f"not JSON at line {error.lineno}, column {error.colno} of the row: {error.msg}"
    elif not data.lstrip().startswith((b"{", b"[")):
        remedy = f"{_ONE_PER_LINE} Name a CSV file .csv."
    return where.error(problem, remedy, kind="NotJson")
