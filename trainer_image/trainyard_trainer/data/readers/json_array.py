"""One JSON array of objects, read element by element: the file may be larger than memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from trainyard_trainer.data.readers.lines import BYTE_ORDER_MARK, LONGEST_ROW, parse_object, too_long
from trainyard_trainer.data.rows import Columns, Row
from trainyard_trainer.errors import RowError

_CHUNK = 1 << 18
_STRUCTURE = re.compile(rb'["{}\[\],]')
_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_REMEDY = "Write [ {...}, {...} ], or better one JSON object per line without brackets and commas."


def read(stream: BinaryIO, file: str, _columns: Columns) -> Iterator[Row | RowError]:
    """Each row, its number that of the element.

    Raises:
        RowError: the array does not end, or something follows it.
    """
    number = 0
    scanner = _Scanner(stream)
    for element in scanner.elements():
        number += 1
        yield too_long(file, number) if element is None else _parsed(Row(file, number, {}), element)
    if (problem := scanner.problem()) is not None:
        raise Row(file, number + 1, {}).error(problem, _REMEDY, kind="BrokenArray")


def _parsed(where: Row, element: bytes) -> Row | RowError:
    if not element.strip():
        return where.error("there is nothing between two commas, or behind the last", _REMEDY, kind="BrokenArray")
    try:
        return parse_object(where, element.strip())
    except RowError as error:
        return error


class _Scanner:
    """Cuts an array into its elements by brackets, commas and strings alone; what they hold is for a JSON parser.

    Bytes of a UTF-8 character are never taken for a bracket or a quote.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._buffer = b""
        self._at = 0
        self._depth = 0
        self._in_string = False
        self._oversized = False
        self._ended = False
        self._first = True

    def elements(self) -> Iterator[bytes | None]:
        """Each element as it stands between the commas; None for one longer than `LONGEST_ROW`."""
        if not self._open():
            return
        start = self._at
        while (mark := self._next_mark(start)) is not None:
            kind, start = mark
            last = kind == b"]"
            element = self._buffer[start : self._at - 1]
            start = self._at
            if self._oversized or len(element) > LONGEST_ROW:
                yield None
            elif not last or element.strip() or not self._first:
                yield element
            self._first = self._oversized = False
            if last:
                self._ended = True
                return

    def problem(self) -> str | None:
        """What is wrong with the file as a whole, once its elements were read."""
        if not self._ended:
            return "the file ends inside the array: it was cut off, or a quote or bracket is not closed"
        rest = self._buffer[self._at :].strip() or self._stream.read(_CHUNK).strip()
        return "something follows the end of the array" if rest else None

    def _open(self) -> bool:
        """Go behind the array's first bracket."""
        while len(self._buffer) < len(BYTE_ORDER_MARK) and (chunk := self._stream.read(_CHUNK)):
            self._buffer += chunk
        self._buffer = self._buffer.removeprefix(BYTE_ORDER_MARK).lstrip()
        while not self._buffer and (chunk := self._stream.read(_CHUNK)):
            self._buffer = chunk.lstrip()
        self._at = 1
        return self._buffer.startswith(b"[")

    def _next_mark(self, start: int) -> tuple[bytes, int] | None:
        """The comma or bracket that ends the element which begins at `start`, and where it begins now; None at the end.

        Afterwards `_at` stands behind the mark.
        """
        while True:
            found = self._scan()
            if found is not None:
                return found, start
            if len(self._buffer) - start > LONGEST_ROW:
                self._oversized = True
            keep = len(self._buffer) - self._at if self._oversized else len(self._buffer) - start
            self._at -= len(self._buffer) - keep
            self._buffer = self._buffer[len(self._buffer) - keep :]
            start = 0
            if not (chunk := self._stream.read(max(_CHUNK, len(self._buffer)))):
                return None
            self._buffer += chunk

    def _scan(self) -> bytes | None:
        """Go on to the next mark of the outermost level; None when the buffer holds no more."""
        while True:
            if self._in_string:
                if not self._skip_string():
                    return None
                continue
            found = _STRUCTURE.search(self._buffer, self._at)
            if found is None:
                self._at = len(self._buffer)
                return None
            self._at = found.end()
            if self._is_mark(found.group()):
                return found.group()

    def _skip_string(self) -> bool:
        """Go behind the string's closing quote; False when the buffer ends before it."""
        found = _STRING.match(self._buffer, self._at)
        self._at = found.end() if found else self._at
        if self._buffer[self._at : self._at + 1] != b'"':
            return False
        self._at += 1
        self._in_string = False
        return True

    def _is_mark(self, token: bytes) -> bool:
        """Whether a token ends an element; keeps count of the depth."""
        if token == b'"':
            self._in_string = True
        elif token in (b"{", b"["):
            self._depth += 1
        elif token == b",":
            return self._depth == 0
        elif self._depth == 0:
            return token == b"]"
        else:
            self._depth -= 1
        return False
