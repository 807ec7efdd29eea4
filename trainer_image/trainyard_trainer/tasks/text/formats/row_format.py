"""The description of a row format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from trainyard_crds.trainingjob_inputs import DatasetFormat
from trainyard_trainer.data.rows import Row
from trainyard_trainer.data.writers import ColumnType
from trainyard_trainer.tasks.text.formats.example import Example

TRAIN_ON_FIELD = "trainOn"
CONVERSATION_FIELDS = ("system", "tools", "functions", "chat_template_kwargs", "parallel_tool_calls")
"""Fields that a conversation of any format may have; the last has no effect on training."""
CONVERSATION_SCHEMA: Mapping[str, ColumnType] = {"tools": str, "chat_template_kwargs": str, TRAIN_ON_FIELD: str}
"""Columns of a Parquet file for what `write` adds to any conversation; JSON values as text."""
NESTED_FIELDS = ("tools", "functions", "chat_template_kwargs")
MEDIA_FIELDS = ("image", "images", "video", "videos", "audio", "audios")
"""Fields of rows for images, video or sound."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """How `data convert` writes a format."""

    write: Callable[[Row, Example], dict[str, object]]
    """Raises RowError where the format cannot express the example."""
    schema: Mapping[str, ColumnType]
    """Columns of a Parquet file, without those of `CONVERSATION_SCHEMA`."""


@dataclass(frozen=True, kw_only=True)
class RowFormat:
    """One way to write rows."""

    name: DatasetFormat
    required: tuple[str, ...]
    """Fields that identify the format."""
    optional: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()
    """Fields of lists; CSV holds them as JSON in a cell."""
    turns: str | None = None
    """Field of the list of turns, if there is one."""
    interpret: Callable[[Row], Example]
    """Makes the example of a row's known fields; raises RowError where one is wrong."""
    target: Target | None = None
    """None: rows cannot be converted to the format."""

    @cached_property
    def known(self) -> frozenset[str]:
        """The fields that a row may have."""
        return frozenset({*self.required, *self.optional, TRAIN_ON_FIELD})

    def parse(self, row: Row) -> Example:
        """The example of a row, with the names of the fields that it does not use.

        Raises:
            RowError: the row is wrong.
        """
        example = self.interpret(row)
        if row.values.keys() <= self.known and not row.unread:
            return example
        unused = [name for name in row.values if name not in self.known and row.values[name] not in _WITHOUT_VALUE]
        for name in unused:
            if name in MEDIA_FIELDS:
                problem = f"field '{name}' has a value, but the task llm trains on text only"
                raise row.error(problem, "Remove the field, or the row.", kind="Media", field=name)
        return replace(example, ignored=(*example.ignored, *unused, *row.unread))


_WITHOUT_VALUE: tuple[object, ...] = (None, "", [], {})
