"""Dataset files of any type and row format, parsed into examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from trainyard_crds.trainingjob_inputs import DatasetFormat
from trainyard_trainer.data.row_file import RowFile
from trainyard_trainer.data.rows import Columns, Row
from trainyard_trainer.errors import DataError, RowError
from trainyard_trainer.tasks.text.formats.detect import detect, detect_most
from trainyard_trainer.tasks.text.formats.example import Example
from trainyard_trainer.tasks.text.formats.registry import COLUMNS, FORMATS

DETECTION_ROWS = 20
"""Rows from which `format: auto` detects the format."""


@dataclass(frozen=True, kw_only=True)
class ExampleFile(RowFile):
    """A dataset file of text examples."""

    columns: Columns = COLUMNS
    format: DatasetFormat = "auto"
    skip_limit: float | None = None
    """Largest share of rows that training skips as invalid; None if an invalid row is an error."""

    def resolve_format(self) -> DatasetFormat:
        """The format of the rows; `auto` is detected from the first `DETECTION_ROWS`, of which all must agree.

        Where invalid rows are skipped, it is that of most of the first readable rows.

        Raises:
            DataError: the file is empty, its first rows fit no format, or one of them cannot be read.
            NotFoundError: the file does not exist.
        """
        skips = self.skip_limit is not None
        found = (row for row in self.rows() if not skips or isinstance(row, Row))
        first = [_readable(row) for row in islice(found, DETECTION_ROWS)]
        if not first:
            problem = "no readable row" if skips else "no rows"
            raise DataError(f"{self.name} has {problem}.", "Write one JSON object per line.")
        if self.format != "auto":
            return self.format
        return detect_most(first) if skips else detect(first)

    def examples(self, poll: Callable[[], None] = lambda: None) -> Iterator[tuple[Row, Example]]:
        """Each row with its example; calls `poll` before each.

        Raises:
            DataError: a row is invalid.
            NotFoundError: the file does not exist.
        """
        for outcome in self.outcomes(poll):
            if isinstance(outcome, RowError):
                raise outcome
            yield outcome

    def outcomes(self, poll: Callable[[], None] = lambda: None) -> Iterator[tuple[Row, Example] | RowError]:
        """Each row with its example, or its error in place of an invalid one; calls `poll` before each.

        Raises:
            DataError: the format cannot be detected, or damage prevents reading the rest of the file.
            NotFoundError: the file does not exist.
        """
        parse = FORMATS[self.resolve_format()].parse
        for found in self.rows():
            poll()
            try:
                row = _readable(found)
                outcome: tuple[Row, Example] | RowError = (row, parse(row))
            except RowError as error:
                outcome = error
            yield outcome


def _readable(row: Row | RowError) -> Row:
    if isinstance(row, RowError):
        raise row
    return row
