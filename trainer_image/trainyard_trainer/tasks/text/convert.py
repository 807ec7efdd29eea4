"""Conversion of rows to another format; the result parses to the same example."""

from __future__ import annotations

from collections.abc import Mapping

from trainyard_crds.trainingjob_inputs import DatasetFormat
from trainyard_trainer.data.rows import Row
from trainyard_trainer.data.writers import ColumnType
from trainyard_trainer.tasks.text.formats.example import Example
from trainyard_trainer.tasks.text.formats.registry import FORMATS
from trainyard_trainer.tasks.text.formats.row_format import CONVERSATION_SCHEMA, TRAIN_ON_FIELD, Target

TARGETS: Mapping[DatasetFormat, Target] = {name: one.target for name, one in FORMATS.items() if one.target}


def convert(row: Row, example: Example, target: DatasetFormat) -> dict[str, object]:
    """The row as an object of format `target`, one of `TARGETS`; fields that training ignores are dropped.

    Raises:
        RowError: the format cannot express the row.
    """
    if not example.messages:
        content = "tokens" if example.tokens else "text"
        problem = f"it is a row of {content}, which cannot be converted to a conversation"
        raise row.error(problem, "Leave it as it is.", kind="NotConvertible")
    values = TARGETS[target].write(row, example)
    return values if example.train_on is None else {**values, TRAIN_ON_FIELD: example.train_on}


def schema_of(target: DatasetFormat) -> dict[str, ColumnType]:
    """Columns of every row that `convert` returns."""
    return {**TARGETS[target].schema, **CONVERSATION_SCHEMA}
