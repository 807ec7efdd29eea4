"""One JSON array of objects, read element by element: the file may be larger than memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from trainyard_trainer.data.readers.lines import LONGEST_ROW, parse_object, too_long
from trainyard_trainer.data.rows import Columns, Row
from trainyard_trainer.errors import RowError

_CHUNK = 1 << 18
_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_ELEMENT = re.compile(rb'(?:[^"{}\[\],]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
"""Everything before the next bracket or comma."""
_NESTED = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
"""Everything before the next bracket."""
_REMEDY = "Write [ {...}, {...} ], or better one JSON object per line without brackets and commas."


class _BrokenArray(Exception):  # noqa: N818 - turned into a RowError below
    """The array does not end, or something follows it."""


def read(stream: BinaryIO, file: str, _columns: Columns) -> Iterator[Row | RowError]:
    """Each row, numbered by its element.

    Raises:
        RowError: the array does not end, or something follows it.
    """
    number = 0
    try:
        for number, element in enumerate(_elements(stream), 1):
            yield too_long(file, number) if element is None else _parsed(Row(file, number, {}), element)
    except _BrokenArray as error:
        raise Row(file, number + 1, {}).error(str(error), _REMEDY, kind="BrokenArray") from error


def _parsed(where: Row, element: bytes) -> Row | RowError:
    if not element:
        return where.error(
            "an element is missing between two commas, or after the last one", _REMEDY, kind="BrokenArray"
        )
    try:
        return parse_object(where, element)
    except RowError as error:
        return error


def _elements(stream: BinaryIO) -> Iterator[bytes | None]:
    """The text of each element; None for one longer than `LONGEST_ROW`.

    Only brackets, commas and quotes matter here, so an element that is not JSON does not end the array.
    """
    while stream.read(1) not in (b"[", b""):
        pass  # a byte-order mark or white space; detection requires the bracket
    marks, element, is_first, is_long = _Marks(), bytearray(), True, False
    while chunk := stream.read(_CHUNK):
        start = 0
        for at, mark in marks.find(chunk):
            element += chunk[start:at]
            start = at + 1
            text = None if is_long or len(element) > LONGEST_ROW else bytes(element.strip())
            if text != b"" or mark == b"," or not is_first:  # [] has no element
                yield text
            element.clear()
            is_first = is_long = False
            if mark == b"]":
                _refuse_rest(chunk[start:], stream)
                return
        element += chunk[start:]
        if len(element) > LONGEST_ROW:
            is_long = True
            element.clear()
    raise _BrokenArray("the file ends inside the array: it was cut off, or a quote or bracket is not closed")


def _refuse_rest(rest: bytes, stream: BinaryIO) -> None:
    while not rest.strip():
        if not (rest := stream.read(_CHUNK)):
            return
    raise _BrokenArray("something follows the end of the array")


class _Marks:
    """Finds the commas and the closing bracket of the outermost array, chunk by chunk.

    No byte of a multi-byte UTF-8 character equals one of them.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._is_escaped = False
        """Whether the last chunk ended with a backslash in a string."""

    def find(self, chunk: bytes) -> Iterator[tuple[int, bytes]]:
        """Offset and value of each mark in the next chunk."""
        at = self._skip_string(chunk, 0) if self._in_string else 0
        while at < len(chunk):
            pattern = _NESTED if self._depth else _ELEMENT
            at = found.end() if (found := pattern.match(chunk, at)) else at
            token = chunk[at : at + 1]
            at += 1
            if token == b'"':  # a string that continues in the next chunk
                at = self._skip_string(chunk, at)
            elif token in (b"{", b"["):
                self._depth += 1
            elif self._depth and token in (b"}", b"]"):
                self._depth -= 1
            elif token in (b",", b"]"):
                yield at - 1, token

    def _skip_string(self, chunk: bytes, at: int) -> int:
        """The offset after the string that `at` is in."""
        found = _STRING.match(chunk, at + self._is_escaped)
        end = found.end() if found else at
        self._in_string = chunk[end : end + 1] != b'"'
        self._is_escaped = chunk[end : end + 1] == b"\\"
        return len(chunk) if self._in_string else end + 1
