"""The description of a row format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trainyard_crds.trainingjob_inputs import DatasetFormat
from trainyard_trainer.data.rows import Row
from trainyard_trainer.data.writers import ColumnType
from trainyard_trainer.tasks.text.formats.example import Example


@dataclass(frozen=True, kw_only=True)
class Target:
    """How `data convert` writes a format."""

    write: Callable[[Row, Example], dict[str, object]]
    """Raises RowError where the format cannot express the example."""
    schema: Mapping[str, ColumnType]
    """Columns of a Parquet file, without `trainOn`."""


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
    parse: Callable[[Row], Example]
    """Raises RowError where the row is wrong."""
    target: Target | None = None
    """None: rows cannot be converted to the format."""
