"""Reading of JSON Lines files: one object per line, UTF-8."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from trainyard_crds.trainingjob import DatasetFormat
from trainyard_trainer.data.formats.detect import PARSERS, detect
from trainyard_trainer.data.formats.example import Example, Row, kind_of
from trainyard_trainer.errors import DataError, NotFoundError

_LONGEST_ROW = 32 << 20
"""Bytes; several times what a sequence of the greatest `maxLength` can hold. Longer ones would fill the memory."""
ROWS_LOOKED_AT = 20
"""Rows that `format: auto` decides by."""
_ONE_PER_LINE = 'Write JSON Lines (no CSV): one JSON object per line, for example {"messages": [...]}.'
_NO_ARRAY = "A JSON array is not read: write one object per line, without brackets and commas (jq -c '.[]' does it)."
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True)
class RowFile:
    """A dataset file; `name` is how messages call it."""

    path: Path
    name: str
    format: DatasetFormat = "auto"
    max_rows: int | None = None

    def resolve_format(self) -> DatasetFormat:
        """The format of the rows; `auto` looks at the first ones.

        Raises:
            DataError: the file is empty, or its first rows fit no format.
            NotFoundError: there is no such file.
        """
        first = list(islice(self._rows(), ROWS_LOOKED_AT))
        if not first:
            raise DataError(f"{self.name} has no rows.", "Write one JSON object per line.")
        return detect(first) if self.format == "auto" else self.format

    def examples(self, poll: Callable[[], None] = lambda: None) -> Iterator[tuple[Row, Example]]:
        """Each row with its content, calling `poll` before each.

        Raises:
            DataError: a row is wrong; the message says which and how.
            NotFoundError: there is no such file.
        """
        parse = PARSERS[self.resolve_format()]
        for row in islice(self._rows(), self.max_rows):
            poll()
            yield row, parse(row)

    def _rows(self) -> Iterator[Row]:
        for number, line in enumerate(self._lines(), start=1):
            if line.strip():
                yield Row(self.name, number, _parse_object(self.name, number, line))

    def _lines(self) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(iter(lambda: file.readline(_LONGEST_ROW + 1), b"")):
                    if len(line) > _LONGEST_ROW:
                        problem = f"it is longer than {_LONGEST_ROW >> 20} MiB"
                        raise Row(self.name, number + 1, {}).error(
                            problem, "Split it into rows that fit into maxLength."
                        )
                    yield line.removeprefix(_BYTE_ORDER_MARK) if number == 0 else line
        except FileNotFoundError as error:
            raise NotFoundError(f"There is no file {self.name}.", "Check spec.dataset and its validation.") from error
        except OSError as error:
            raise NotFoundError(f"{self.name} cannot be read: {error.strerror}.", "Name a readable file.") from error


def _parse_object(file: str, number: int, line: bytes) -> dict[str, object]:
    where = Row(file, number, {})
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        remedy = "Give a JSON Lines file as UTF-8 text, not compressed."
        raise where.error(f"byte {error.start + 1} of the line is not UTF-8", remedy) from error
    except json.JSONDecodeError as error:
        raise _not_json(where, line, error) from error
    except (ValueError, RecursionError) as error:
        remedy = "Write plain rows: no number of thousands of digits, no nesting of thousands of levels."
        raise where.error("the line is JSON of an extreme size", remedy) from error
    if not isinstance(value, dict):
        remedy = _NO_ARRAY if isinstance(value, list) else _ONE_PER_LINE
        raise where.error(f"the row must be an object but is {kind_of(value)}", remedy)
    return value


def _not_json(row: Row, line: bytes, error: json.JSONDecodeError) -> DataError:
    """What is wrong with a line, with the remedy for the usual mistakes."""
    problem = f"not JSON at column {error.colno}: {error.msg}"
    if error.msg == "Extra data":
        return row.error(f"not JSON: something follows at column {error.colno}", f"{_ONE_PER_LINE} No comma behind it.")
    if line.lstrip().startswith(b"["):
        return row.error(problem, _NO_ARRAY)
    if line.strip() == b"{":
        return row.error(problem, f"{_ONE_PER_LINE} Not spread over several lines.")
    return row.error(problem, _ONE_PER_LINE)
