"""Check of rows with a model's tokenizer: refusals of its chat template, and rows that are too long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainyard_trainer.data.rows import Row
from trainyard_trainer.errors import DataError, RowError
from trainyard_trainer.tasks.text.chat import Encoded, Encoder
from trainyard_trainer.tasks.text.formats.example import Example
from trainyard_trainer.tasks.text.token_rows import Collector, Overlong, encoded_or_refused, nothing_usable

_ROWS_KEPT = 20


@dataclass(kw_only=True)
class Lengths:
    """Counts of rows that exceed the maximum length."""

    max_length: int
    overlong: Overlong
    rows: int = 0
    dropped: int = 0
    truncated: int = 0
    split: int = 0
    without_loss: int = 0
    """Rows dropped because no token within the limit carries loss."""
    longest: int = 0
    first: list[tuple[str, int, int]]
    """File, row and tokens of the first rows that are too long."""

    def to_json(self) -> dict[str, object]:
        """The camelCase document."""
        return {
            "maxLength": self.max_length,
            "overlong": self.overlong,
            "rowsDropped": self.dropped,
            "rowsTruncated": self.truncated,
            "rowsSplit": self.split,
            "rowsWithoutLoss": self.without_loss,
            "longest": self.longest,
            "firstTooLong": [{"file": file, "row": row, "tokens": tokens} for file, row, tokens in self.first],
        }

    def lines(self) -> list[str]:
        """Lines for a terminal; none for counts of zero."""
        limit = f"longer than maxLength {self.max_length:,} (longest: {self.longest:,} tokens)"
        effects = [
            (self.dropped, f"{limit}: training drops them"),
            (self.truncated, f"{limit}: training truncates them"),
            (self.split, f"{limit}: training splits them"),
            (self.without_loss, "without a token with loss within maxLength: training drops them"),
        ]
        lines = [f"{count:,} of {self.rows:,} rows are {effect}" for count, effect in effects if count]
        return [*lines, *(f"{file}, row {row}: {tokens:,} tokens" for file, row, tokens in self.first)]


class TokenCheck:
    """Tokenises rows as training does."""

    def __init__(self, encoder: Encoder, max_length: int, overlong: Overlong) -> None:
        self._encoder = encoder
        self.lengths = Lengths(max_length=max_length, overlong=overlong, first=[])
        self._collector = Collector(max_length, overlong)

    @property
    def warnings(self) -> Mapping[str, int]:
        """Rows of the file by warning."""
        return self._collector.warnings

    def begin_file(self) -> None:
        """Restart the counts of one file."""
        self._collector = Collector(self.lengths.max_length, self.lengths.overlong)

    def check(self, pairs: Sequence[tuple[Row, Example]]) -> dict[int, RowError]:
        """Errors of rows that the template refuses, by index in `pairs`; the other rows are counted.

        Raises:
            ConfigurationError: the chat template cannot be used.
        """
        refused = {}
        for at, (found, pair) in enumerate(zip(encoded_or_refused(self._encoder, pairs), pairs, strict=True)):
            if isinstance(found, RowError):
                refused[at] = found
            else:
                self._count(found, *pair)
        return refused

    def _count(self, encoded: Encoded, row: Row, example: Example) -> None:
        list(self._collector.accept(encoded, row, example))
        if len(encoded.tokens) > self.lengths.max_length and len(self.lengths.first) < _ROWS_KEPT:
            self.lengths.first.append((row.file, row.number, len(encoded.tokens)))

    def end_file(self, name: str) -> DataError | None:
        """The error of training if no row of the file is usable."""
        found, lengths = self._collector, self.lengths
        lengths.rows += len(found.lengths)
        lengths.dropped += found.dropped
        lengths.truncated += found.truncated
        lengths.split += found.split
        lengths.without_loss += found.without_loss
        lengths.longest = max([lengths.longest, *found.lengths])
        is_empty = found.dropped + found.without_loss == len(found.lengths) > 0
        return nothing_usable(name, found) if is_empty else None
