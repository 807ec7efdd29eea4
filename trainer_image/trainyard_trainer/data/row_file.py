"""Dataset files of any type, as rows that a task has not interpreted yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from trainyard_trainer.data.readers.files import describe_type, digest_of, read_rows
from trainyard_trainer.data.rows import Columns, Row
from trainyard_trainer.errors import RowError


@dataclass(frozen=True, kw_only=True)
class RowFile:
    """A dataset file; messages call it `name`."""

    path: Path
    name: str
    columns: Columns
    max_rows: int | None = None

    @property
    def type_name(self) -> str:
        """The type of the file, for example "CSV".

        Raises:
            DataError: the type is not supported.
            NotFoundError: the file does not exist.
        """
        return describe_type(self.path, self.name)

    def digest(self, poll: Callable[[], None] = lambda: None) -> str:
        """SHA-256 (hex) of the file's bytes.

        Args:
            poll: Called after each chunk; may raise.

        Raises:
            NotFoundError: the file does not exist.
        """
        return digest_of(self.path, self.name, poll)

    def rows(self) -> Iterator[Row | RowError]:
        """The first `max_rows` rows, with an error in place of each unreadable one.

        Raises:
            DataError: damage prevents reading the rest of the file.
            NotFoundError: the file does not exist.
        """
        return islice(read_rows(self.path, self.name, self.columns), self.max_rows)
