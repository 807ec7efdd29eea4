"""Tokenised rows in flat arrays: a few bytes per token, random access."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trainyard_crds.trainingjob_inputs import DatasetFormat
from trainyard_trainer.data.rows import Row
from trainyard_trainer.errors import DataError, RowError
from trainyard_trainer.tasks.text.chat import Encoded, Encoder
from trainyard_trainer.tasks.text.example_file import ExampleFile
from trainyard_trainer.tasks.text.formats.example import Example
from trainyard_trainer.tasks.text.invalid_rows import SkippedRows, too_many_invalid
from trainyard_trainer.tasks.text.row_warnings import field_ignored

Overlong = Literal["drop", "truncate", "split"]
_BATCH_ROWS = 512
"""Rows tokenised in one call."""


@dataclass(frozen=True)
class TokenRows:
    """Concatenated rows; row i is `starts[i]:starts[i + 1]`."""

    tokens: NDArray[np.int32]
    loss: NDArray[np.bool_]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Iterable[Encoded]) -> TokenRows:
        """The rows in arrays."""
        tokens, loss, starts = array("i"), bytearray(), array("q", [0])
        for row in rows:
            tokens.extend(row.tokens)
            loss.extend(row.loss)
            starts.append(len(tokens))
        return cls(
            np.frombuffer(tokens, dtype=np.int32) if tokens else np.empty(0, np.int32),
            np.frombuffer(loss, dtype=np.bool_) if loss else np.empty(0, np.bool_),
            np.frombuffer(starts, dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [int(length) for length in np.diff(self.starts)]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over tokens, loss marks and row boundaries."""
        digest = hashlib.sha256()
        for part in (self.starts, self.tokens, self.loss):
            digest.update(part.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Origins:
    """File (an archive's member) and row number, from 1, of each row."""

    files: tuple[str, ...]
    file_of: NDArray[np.int32]
    """By row, an index into `files`."""
    numbers: NDArray[np.int64]

    def __getitem__(self, row: int) -> tuple[str, int]:
        return self.files[int(self.file_of[row])], int(self.numbers[row])


@dataclass(frozen=True, kw_only=True)
class TokenizedFile:
    """The usable rows of one file, and counts of the others."""

    rows: TokenRows
    origins: Origins
    """Of each usable row; the pieces of a split row share one."""
    format: DatasetFormat
    digests: list[bytes]
    """SHA-256 of the content of each usable row; the pieces of a split row share one."""
    seen: int
    dropped: int
    """Rows dropped because they are longer than the limit."""
    truncated: int
    split: int
    """Rows split because they are longer than the limit."""
    without_loss: int
    """Rows dropped because no token within the limit carries loss."""
    longest: int
    """Tokens of the longest row, usable or not."""
    template: str | None
    """The chat template, if a conversation was rendered with it."""
    warnings: dict[str, int]
    """Rows by warning, named as in `row_warnings`."""
    invalid: int = 0
    """Invalid rows that were skipped; `seen` does not count them."""
    first_invalid: tuple[tuple[str, str], ...] = ()
    """The first of them: label and sentence."""

    @property
    def skipped(self) -> SkippedRows:
        """The invalid rows."""
        return SkippedRows(self.invalid, tuple((label, sentence) for label, sentence in self.first_invalid))


class Collector:
    """Applies the length limit to the rows of one file and counts the outcomes."""

    def __init__(self, max_length: int, overlong: Overlong) -> None:
        self.max_length = max_length
        self.overlong = overlong
        self.digests: list[bytes] = []
        self.files: dict[str, int] = {}
        self.file_of = array("i")
        self.numbers = array("q")
        self.lengths = array("i")
        self.dropped = self.truncated = self.split = self.without_loss = 0
        self.warnings: Counter[str] = Counter()
        self.skipped = SkippedRows()

    def used(
        self, encoder: Encoder, outcomes: Iterator[tuple[Row, Example] | RowError], *, skip_invalid: bool
    ) -> Iterator[Encoded]:
        """Tokenise the rows and yield the usable ones.

        Raises:
            RowError: a row is invalid, unless `skip_invalid`.
        """
        while batch := list(islice(outcomes, _BATCH_ROWS)):
            valid = [outcome for outcome in batch if not isinstance(outcome, RowError)]
            encoded = iter(encoded_or_refused(encoder, valid))
            for outcome in batch:
                found = outcome if isinstance(outcome, RowError) else next(encoded)
                if isinstance(outcome, RowError) or isinstance(found, RowError):
                    assert isinstance(found, RowError)
                    if not skip_invalid:
                        raise found
                    self.skipped.add(found)
                else:
                    yield from self.accept(found, *outcome)

    @property
    def origins(self) -> Origins:
        """Origins of the usable rows."""
        return Origins(tuple(self.files), np.array(self.file_of, np.int32), np.array(self.numbers, np.int64))

    def accept(self, encoded: Encoded, row: Row, example: Example) -> Iterator[Encoded]:
        """The usable parts of a row: none, the row, or its pieces."""
        length = len(encoded.tokens)
        self.lengths.append(length)
        if encoded.warnings:
            self.warnings.update(encoded.warnings)
        if example.ignored:
            self.warnings.update(map(field_ignored, example.ignored))
        is_long = length > self.max_length
        # Conversations are not split: a piece could be an answer without its question.
        if is_long and (self.overlong == "drop" or (self.overlong == "split" and example.messages)):
            self.dropped += 1
            return
        pieces = encoded.pieces(self.max_length) if is_long and self.overlong == "split" else [encoded]
        usable = [piece for piece in (piece.cut(self.max_length) for piece in pieces) if piece.has_loss]
        if not usable:
            self.without_loss += 1
            return
        self.truncated += is_long and self.overlong == "truncate"
        self.split += len(pieces) > 1
        digest = example.digest
        self.digests += [digest] * len(usable)
        self.file_of.extend([self.files.setdefault(row.file, len(self.files))] * len(usable))
        self.numbers.extend([row.number] * len(usable))
        yield from usable


def encoded_or_refused(encoder: Encoder, pairs: Sequence[tuple[Row, Example]]) -> list[Encoded | RowError]:
    """Tokenise rows, with an error in place of each that the chat template refuses.

    Raises:
        ConfigurationError: the chat template cannot be used.
    """
    try:
        return list(encoder.encode_all(pairs))
    except RowError as error:
        return [error] if len(pairs) == 1 else [encoded_or_refused(encoder, [pair])[0] for pair in pairs]


def tokenize_file(
    file: ExampleFile,
    encoder: Encoder,
    *,
    max_length: int,
    overlong: Overlong,
    poll: Callable[[], None] = lambda: None,
) -> TokenizedFile:
    """Tokenise every row of a file.

    Args:
        file: The file.
        encoder: Tokenises rows.
        max_length: Longest row in tokens.
        overlong: Treatment of longer rows.
        poll: Called before each row; may raise.

    Raises:
        ConfigurationError: the chat template cannot be used.
        DataError: a row is invalid (where they are skipped: too many are), or none is usable.
        NotFoundError: the file does not exist.
    """
    found = file.resolve_format()
    file = replace(file, format=found)
    collector = Collector(max_length, overlong)
    limit, skipped = file.skip_limit, collector.skipped
    rows = TokenRows.of(collector.used(encoder, file.outcomes(poll), skip_invalid=limit is not None))
    all_rows = len(collector.lengths) + skipped.count
    if limit is not None and skipped.count > limit * all_rows:
        raise too_many_invalid(file.name, skipped.count, all_rows, limit, skipped.named())
    if not len(rows):
        raise nothing_usable(file.name, collector)
    return TokenizedFile(
        rows=rows,
        origins=collector.origins,
        format=found,
        digests=collector.digests,
        seen=len(collector.lengths),
        dropped=collector.dropped,
        truncated=collector.truncated,
        split=collector.split,
        without_loss=collector.without_loss,
        longest=max(collector.lengths),
        template=encoder.template,
        warnings=dict(collector.warnings),
        invalid=collector.skipped.count,
        first_invalid=collector.skipped.first,
    )


def nothing_usable(name: str, collector: Collector) -> DataError:
    """The error of a file without usable rows."""
    longest, shortest = max(collector.lengths), min(collector.lengths)
    count, limit = len(collector.lengths), collector.max_length
    if collector.dropped == count:
        return DataError(
            f"All {count} rows of {name} are longer than spec.llm.maxLength {limit}: the shortest has {shortest}"
            f" tokens, the longest {longest}.",
            f"Set spec.llm.maxLength to {longest} or more, or spec.llm.overlong: truncate.",
        )
    return DataError(
        f"No row of {name} has an answer within spec.llm.maxLength {limit} tokens (rows have {shortest} to {longest}).",
        "Raise spec.llm.maxLength, or write shorter questions.",
    )
