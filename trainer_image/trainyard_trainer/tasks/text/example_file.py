"""Dataset files: rows of any file type in any format, parsed into examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from trainyard_crds.trainingjob_inputs import DatasetFormat
from trainyard_trainer.data.readers.files import describe_type, digest_of, read_rows
from trainyard_trainer.data.rows import Row
from trainyard_trainer.errors import DataError, RowError
from trainyard_trainer.tasks.text.formats.detect import detect
from trainyard_trainer.tasks.text.formats.example import Example
from trainyard_trainer.tasks.text.formats.registry import COLUMNS, FORMATS

DETECTION_ROWS = 20
"""Rows from which `format: auto` detects the format."""


@dataclass(frozen=True, kw_only=True)
class RowFile:
    """A dataset file; messages call it `name`."""

    path: Path
    name: str
    format: DatasetFormat = "auto"
    max_rows: int | None = None

    @property
    def type_name(self) -> str:
        """The type of the file, for example "CSV".

        Raises:
            DataError: the type is not supported.
            NotFoundError: the file does not exist.
        """
        return describe_type(self.path, self.name)

    def digest(self, poll: Callable[[], None] = lambda: None) -> str:
        """SHA-256 (hex) of the file's bytes.

        Args:
            poll: Called after each chunk; may raise.

        Raises:
            NotFoundError: the file does not exist.
        """
        return digest_of(self.path, self.name, poll)

    def resolve_format(self) -> DatasetFormat:
        """The format of the rows; `auto` is detected from the first `DETECTION_ROWS`.

        Raises:
            DataError: the file is empty, its first rows fit no format, or one of them cannot be read.
            NotFoundError: the file does not exist.
        """
        first = [_readable(row) for row in islice(self.rows(), DETECTION_ROWS)]
        if not first:
            raise DataError(f"{self.name} has no rows.", "Write one JSON object per line.")
        return detect(first) if self.format == "auto" else self.format

    def examples(self, poll: Callable[[], None] = lambda: None) -> Iterator[tuple[Row, Example]]:
        """Each row with its example; calls `poll` before each.

        Raises:
            DataError: a row is invalid.
            NotFoundError: the file does not exist.
        """
        parse = FORMATS[self.resolve_format()].parse
        for found in self.rows():
            poll()
            row = _readable(found)
            yield row, parse(row)

    def rows(self) -> Iterator[Row | RowError]:
        """The first `max_rows` rows, with an error in place of each unreadable one.

        Raises:
            DataError: damage prevents reading the rest of the file.
            NotFoundError: the file does not exist.
        """
        return islice(read_rows(self.path, self.name, COLUMNS), self.max_rows)


def _readable(row: Row | RowError) -> Row:
    if isinstance(row, RowError):
        raise row
    return row
