"""Invalid rows that are skipped (spec.dataset.onInvalidRow: skip): which are named, and how many are too many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainyard_crds.report import MOST_INVALID_ROWS, ROW_LIMIT, ROW_MESSAGE_LIMIT, InvalidRow, InvalidRows
from trainyard_trainer.errors import DataError, RowError

_MOST_IN_MESSAGE = 3


@dataclass
class SkippedRows:
    """The number of skipped rows, and the first of them as (label, sentence)."""

    count: int = 0
    first: tuple[tuple[str, str], ...] = ()

    def add(self, error: RowError) -> None:
        """Count a row, and keep its error if it is one of the first."""
        self.count += 1
        if len(self.first) < MOST_INVALID_ROWS:
            label = _shortened(f"{error.file}, row {error.row}", ROW_LIMIT, keep_end=True)
            sentence = f"{error.problem[:1].upper()}{error.problem[1:]}."
            self.first = (*self.first, (label, _shortened(sentence, ROW_MESSAGE_LIMIT)))

    def named(self) -> str:
        """The first rows with what is invalid in each, as a sentence."""
        return "The first: " + " ".join(f"{label}: {sentence}" for label, sentence in self.first[:_MOST_IN_MESSAGE])


def too_many_invalid(name: str, count: int, rows: int, limit: float, named: str = "") -> DataError:
    """The error of a file with more invalid rows than may be skipped.

    Args:
        name: The file.
        count: Its invalid rows.
        rows: All its rows.
        limit: The largest share of them.
        named: The first invalid rows, a sentence.
    """
    problem = f"{count:,} of {rows:,} rows of {name} are invalid, more than spec.dataset.maxInvalidFraction {limit:g}."
    return DataError(
        f"{problem} {named}".rstrip(),
        "Correct or remove these rows ('trainyard-trainer data validate' lists them), or raise "
        "spec.dataset.maxInvalidFraction.",
    )


def invalid_rows(files: Sequence[SkippedRows]) -> InvalidRows | None:
    """What the status shows of the skipped rows of all files; None if none was skipped."""
    count = sum(file.count for file in files)
    named = [InvalidRow(row=label, message=sentence) for file in files for label, sentence in file.first]
    return InvalidRows(count=count, first=named[:MOST_INVALID_ROWS]) if count else None


def _shortened(text: str, limit: int, *, keep_end: bool = False) -> str:
    """Cut a text to `limit` characters, without control characters: a row may contain terminal escape sequences."""
    clean = "".join(letter if letter.isprintable() else " " for letter in text)
    if len(clean) <= limit:
        return clean
    return "..." + clean[3 - limit :] if keep_end else clean[: limit - 3] + "..."
