"""Rows as a model's tokenizer sees them, without training: what its chat template refuses, and what is too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainyard_trainer.data.rows import Row
from trainyard_trainer.errors import DataError, RowError
from trainyard_trainer.tasks.text.chat import Encoder
from trainyard_trainer.tasks.text.formats.example import Example
from trainyard_trainer.tasks.text.token_rows import Collector, Overlong, nothing_usable

_ROWS_KEPT = 20


@dataclass(kw_only=True)
class Lengths:
    """Rows against the limit of their length."""

    max_length: int
    overlong: Overlong
    rows: int = 0
    dropped: int = 0
    truncated: int = 0
    split: int = 0
    without_loss: int = 0
    """Rows left out because nothing within the limit is learnt."""
    longest: int = 0
    first: list[tuple[str, int, int]]
    """File, row and tokens of the first that are too long."""

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
        """Sentences for a terminal, where there is something to say."""
        limit = f"longer than maxLength {self.max_length:,} (longest: {self.longest:,} tokens)"
        fates = [
            (self.dropped, f"{limit}: training would leave them out"),
            (self.truncated, f"{limit}: training would cut them"),
            (self.split, f"{limit}: training would make several of each"),
            (self.without_loss, "without a token to learn within maxLength: training would leave them out"),
        ]
        said = [f"{count:,} of {self.rows:,} rows are {fate}" for count, fate in fates if count]
        return [*said, *(f"{file}, row {row}: {tokens:,} tokens" for file, row, tokens in self.first)]


class TokenCheck:
    """Encodes rows as training would."""

    def __init__(self, encoder: Encoder, max_length: int, overlong: Overlong) -> None:
        self._encoder = encoder
        self.lengths = Lengths(max_length=max_length, overlong=overlong, first=[])
        self._collector = Collector(max_length, overlong)

    def begin_file(self) -> None:
        """Count anew: that none can be used is said of a file."""
        self._collector = Collector(self.lengths.max_length, self.lengths.overlong)

    def check(self, pairs: Sequence[tuple[Row, Example]]) -> dict[int, RowError]:
        """What the template refuses, by its place in `pairs`; the others are counted.

        Raises:
            ConfigurationError: the chat template cannot be used.
        """
        try:
            self._count(pairs)
        except RowError:
            return self._check_each(pairs)
        return {}

    def _check_each(self, pairs: Sequence[tuple[Row, Example]]) -> dict[int, RowError]:
        refused = {}
        for at, pair in enumerate(pairs):
            try:
                self._count([pair])
            except RowError as error:
                refused[at] = error
        return refused

    def _count(self, pairs: Sequence[tuple[Row, Example]]) -> None:
        for encoded, (row, example) in zip(self._encoder.encode_all(pairs), pairs, strict=True):
            list(self._collector.accept(encoded, row, example))
            if len(encoded.tokens) > self.lengths.max_length and len(self.lengths.first) < _ROWS_KEPT:
                self.lengths.first.append((row.file, row.number, len(encoded.tokens)))

    def end_file(self, name: str) -> DataError | None:
        """The error that training would end with where none of the file's rows can be used."""
        found, lengths = self._collector, self.lengths
        lengths.rows += len(found.lengths)
        lengths.dropped += found.dropped
        lengths.truncated += found.truncated
        lengths.split += found.split
        lengths.without_loss += found.without_loss
        lengths.longest = max([lengths.longest, *found.lengths])
        is_empty = found.dropped + found.without_loss == len(found.lengths) > 0
        return nothing_usable(name, found) if is_empty else None
