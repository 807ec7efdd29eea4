"""Rows of a dataset file before a task interprets them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainyard_trainer.errors import RowError


@dataclass(frozen=True)
class Columns:
    """The columns a task reads from tables; JSON rows are read whole."""

    names: frozenset[str]
    nested: frozenset[str]
    """Columns of lists or objects; CSV holds them as JSON in a cell."""


@dataclass(frozen=True)
class Row:
    """One row of a file and its position, which every error names."""

    file: str
    number: int
    """From 1: the line of JSON Lines, the element of an array, the row of a table."""
    values: Mapping[str, Any]
    unread: tuple[str, ...] = field(default=(), compare=False)
    """Columns of the file that no task reads; their values are not known."""

    def error(self, problem: str, remedy: str, *, kind: str, field: str | None = None) -> RowError:
        """The error for this row."""
        return RowError(problem, remedy, file=self.file, row=self.number, kind=kind, field=field)

    def text(self, field: str, *, optional: bool = False) -> str:
        """The string in `field`; "" when it is optional and absent or null.

        Raises:
            RowError: the field is missing, not a string, or not valid Unicode.
        """
        value = self.values.get(field)
        if value is None and optional:
            return ""
        if value is None:
            remedy = f"Give every row a text in '{field}'."
            raise self.error(f"field '{field}' is missing", remedy, kind="MissingField", field=field)
        return self.checked_text(value, field)

    def checked_text(self, value: object, field: str) -> str:
        """`value` if it is a string that UTF-8 can encode.

        Raises:
            RowError: it is not.
        """
        if not isinstance(value, str):
            problem, remedy = f"field '{field}' must be text but is {type_name(value)}", f"Write '{field}' as a string."
            raise self.error(problem, remedy, kind="WrongType", field=field)
        try:
            value.encode()
        except UnicodeEncodeError as error:
            problem = f"field '{field}' has half of a surrogate pair"
            remedy = "Write the character itself, or both halves of its \\uXXXX\\uXXXX escape."
            raise self.error(problem, remedy, kind="NotUnicode", field=field) from error
        return value


def type_name(value: object) -> str:
    """The type of a JSON value as messages name it."""
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
