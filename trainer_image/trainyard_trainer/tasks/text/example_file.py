"""Dataset files of any type and row format, parsed into examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from trainyard_crds.trainingjob_inputs import DatasetFormat
from trainyard_trainer.data.row_file import RowFile
from trainyard_trainer.data.rows import Columns, Row
from trainyard_trainer.errors import DataError, RowError
from trainyard_trainer.tasks.text.formats.detect import detect
from trainyard_trainer.tasks.text.formats.example import Example
from trainyard_trainer.tasks.text.formats.registry import COLUMNS, FORMATS

DETECTION_ROWS = 20
"""Rows from which `format: auto` detects the format."""


@dataclass(frozen=True, kw_only=True)
class ExampleFile(RowFile):
    """A dataset file of text examples."""

    columns: Columns = COLUMNS
    format: DatasetFormat = "auto"

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


def _readable(row: Row | RowError) -> Row:
    if isinstance(row, RowError):
        raise row
    return row
