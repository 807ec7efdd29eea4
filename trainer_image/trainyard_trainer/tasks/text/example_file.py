"""Dataset files: rows of any kind of file in any format, as examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from trainyard_crds.trainingjob_inputs import DatasetFormat
from trainyard_trainer.data.readers.files import digest_of, kind_of_path, read_rows
from trainyard_trainer.data.rows import Row
from trainyard_trainer.errors import DataError, RowError
from trainyard_trainer.tasks.text.formats.detect import detect
from trainyard_trainer.tasks.text.formats.example import Example
from trainyard_trainer.tasks.text.formats.registry import COLUMNS, FORMATS

ROWS_LOOKED_AT = 20
"""Rows that `format: auto` decides by."""


@dataclass(frozen=True, kw_only=True)
class RowFile:
    """A dataset file; `name` is how messages call it."""

    path: Path
    name: str
    format: DatasetFormat = "auto"
    max_rows: int | None = None

    @property
    def kind(self) -> str:
        """What kind of file it is, in words, for example "CSV".

        Raises:
            DataError: it is of no kind that is read.
            NotFoundError: there is no such file.
        """
        return kind_of_path(self.path, self.name)

    def digest(self, poll: Callable[[], None] = lambda: None) -> str:
        """SHA-256 (hex) of the file's bytes.

        Args:
            poll: Called again and again; may raise.

        Raises:
            NotFoundError: there is no such file.
        """
        return digest_of(self.path, self.name, poll)

    def resolve_format(self) -> DatasetFormat:
        """The format of the rows; `auto` looks at the first ones.

        Raises:
            DataError: the file is empty, its first rows fit no format, or one of them cannot be read.
            NotFoundError: there is no such file.
        """
        first = [_readable(row) for row in islice(self.rows(), ROWS_LOOKED_AT)]
        if not first:
            raise DataError(f"{self.name} has no rows.", "Write one JSON object per line.")
        return detect(first) if self.format == "auto" else self.format

    def examples(self, poll: Callable[[], None] = lambda: None) -> Iterator[tuple[Row, Example]]:
        """Each row with its content, calling `poll` before each.

        Raises:
            DataError: a row is wrong; the message says which and how.
            NotFoundError: there is no such file.
        """
        parse = FORMATS[self.resolve_format()].parse
        for found in self.rows():
            poll()
            row = _readable(found)
            yield row, parse(row)

    def rows(self) -> Iterator[Row | RowError]:
        """The first `max_rows` rows; an error in place of each that cannot be read.

        Raises:
            DataError: nothing behind this row can be read.
            NotFoundError: there is no such file.
        """
        return islice(read_rows(self.path, self.name, COLUMNS), self.max_rows)


def _readable(row: Row | RowError) -> Row:
    if isinstance(row, RowError):
        raise row
    return row
