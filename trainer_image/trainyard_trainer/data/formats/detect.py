"""Which format rows are written in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from trainyard_crds.trainingjob import DatasetFormat
from trainyard_trainer.data.formats import alpaca, messages, query_response, sharegpt, text
from trainyard_trainer.data.formats.example import Example, Row

PARSERS: Mapping[DatasetFormat, Callable[[Row], Example]] = {
    "messages": messages.parse,
    "sharegpt": sharegpt.parse,
    "alpaca": alpaca.parse,
    "query-response": query_response.parse,
    "text": text.parse,
}
# In this order: a row with both `messages` and `text` is a conversation with its rendering beside it.
_FIELDS: Mapping[DatasetFormat, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
    "query-response": ("query", "response"),
    "text": ("text",),
}


def detect(rows: Sequence[Row]) -> DatasetFormat:
    """The format of the first rows of a file, of which there is at least one.

    Raises:
        DataError: a row fits no format, or two rows fit different ones.
    """
    first, *others = rows
    found = _detect_row(first)
    for row in others:
        if (other := _detect_row(row)) != found:
            problem = f"the row is written as {other}, but row {first.line} as {found}"
            raise row.error(problem, "Write all rows of a file in one format, or set spec.dataset.format.")
    return found


def _detect_row(row: Row) -> DatasetFormat:
    for name, fields in _FIELDS.items():
        if all(field in row.values for field in fields):
            return name
    keys = ", ".join(f"'{key[:40]}'" for key in list(row.values)[:8]) or "none"
    known = "; ".join(f"{name} ({', '.join(fields)})" for name, fields in _FIELDS.items())
    raise row.error(f"its fields ({keys}) fit no format", f"Write rows as one of: {known}.")
