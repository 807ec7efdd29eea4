"""Which format rows are written in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from trainyard_crds.trainingjob_inputs import DatasetFormat
from trainyard_trainer.tasks.text.formats import alpaca, messages, query_response, sharegpt, text, tokenized
from trainyard_trainer.tasks.text.formats.example import Example, Row

PARSERS: Mapping[DatasetFormat, Callable[[Row], Example]] = {
    "messages": messages.parse,
    "sharegpt": sharegpt.parse,
    "alpaca": alpaca.parse,
    "query-response": query_response.parse,
    "text": text.parse,
    "tokenized": tokenized.parse,
}
# In this order: a row with both `messages` and `text` is a conversation with its rendering beside it, and one with
# `input_ids` was tokenised from whatever else it holds.
_FIELDS: Mapping[DatasetFormat, tuple[str, ...]] = {
    "tokenized": ("input_ids",),
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
    "query-response": ("query", "response"),
    "text": ("text",),
}


FIELDS = frozenset(
    {"attention_mask", "history", "input", "labels", "loss_mask", "system", "trainOn"}.union(*_FIELDS.values())
)
"""Every field that some format reads."""


def detect(rows: Sequence[Row]) -> DatasetFormat:
    """The format of the first rows of a file, of which there is at least one.

    Raises:
        RowError: a row fits no format, or two rows fit different ones.
    """
    first, *others = rows
    found = _detect_row(first)
    for row in others:
        if (other := _detect_row(row)) != found:
            problem = f"the row is written as {other}, but row {first.line} as {found}"
            raise row.error(
                problem, "Write all rows of a file in one format, or set spec.dataset.format.", kind="MixedFormats"
            )
    return found


def _detect_row(row: Row) -> DatasetFormat:
    filled = {field for field, value in row.values.items() if value is not None}
    for known in (filled, row.values.keys()):  # tables give every row every column, null where it has nothing
        for name, fields in _FIELDS.items():
            if known >= set(fields):
                return name
    keys = ", ".join(f"'{key[:40]}'" for key in list(row.values)[:8]) or "none"
    formats = "; ".join(f"{name} ({', '.join(fields)})" for name, fields in _FIELDS.items())
    problem, remedy = f"its fields ({keys}) fit no format", f"Write rows as one of: {formats}."
    raise row.error(problem, remedy, kind="UnknownFormat")
