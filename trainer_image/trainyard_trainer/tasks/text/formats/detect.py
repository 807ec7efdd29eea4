"""Detection of the format of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from trainyard_crds.trainingjob_inputs import DatasetFormat
from trainyard_trainer.data.rows import Row
from trainyard_trainer.errors import RowError
from trainyard_trainer.tasks.text.formats.registry import FORMATS


def detect(rows: Sequence[Row]) -> DatasetFormat:
    """The format of the first rows of a file, at least one.

    Raises:
        RowError: a row fits no format, or two rows fit different ones.
    """
    first, *others = rows
    found = _detect_row(first)
    for row in others:
        if (other := _detect_row(row)) != found:
            problem = f"the row is written as {other}, but row {first.number} as {found}"
            remedy = "Write all rows of a file in one format, or set spec.dataset.format."
            raise row.error(problem, remedy, kind="MixedFormats")
    return found


def detect_most(rows: Sequence[Row]) -> DatasetFormat:
    """The format of most of the first rows of a file, at least one; of two equally frequent ones the first.

    Raises:
        RowError: no row fits a format.
    """
    counts, errors = Counter[DatasetFormat](), list[RowError]()
    for row in rows:
        try:
            counts[_detect_row(row)] += 1
        except RowError as error:
            errors.append(error)
    if not counts:
        raise errors[0]
    return counts.most_common(1)[0][0]


def _detect_row(row: Row) -> DatasetFormat:
    filled = {field for field, value in row.values.items() if value is not None}
    for known in (filled, row.values.keys()):  # tables give every row every column, null where it has no value
        for name, one in FORMATS.items():
            if known >= set(one.required):
                return name
    keys = ", ".join(f"'{key[:40]}'" for key in list(row.values)[:8]) or "none"
    formats = "; ".join(f"{name} ({', '.join(one.required)})" for name, one in FORMATS.items())
    problem, remedy = f"its fields ({keys}) fit no format", f"Write rows as one of: {formats}."
    raise row.error(problem, remedy, kind="UnknownFormat")
