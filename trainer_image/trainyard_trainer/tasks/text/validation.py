"""Validation of a dataset: reports every invalid row, not only the first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trainyard_crds.trainingjob_inputs import DatasetFormat
from trainyard_trainer.data.rows import Row
from trainyard_trainer.errors import ConfigurationError, DataError, RowError, TrainerError
from trainyard_trainer.tasks.text.example_file import ExampleFile
from trainyard_trainer.tasks.text.formats.detect import detect
from trainyard_trainer.tasks.text.formats.example import Example
from trainyard_trainer.tasks.text.formats.registry import FORMATS
from trainyard_trainer.tasks.text.invalid_rows import too_many_invalid
from trainyard_trainer.tasks.text.row_warnings import field_ignored, sentences

if TYPE_CHECKING:  # needs transformers
    from trainyard_trainer.tasks.text.token_check import Lengths, TokenCheck

PROBLEMS_KEPT = 100
_BATCH_ROWS = 256
"""Rows tokenised in one call."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One problem; `row` and `field` are None if it concerns the whole file or row."""

    file: str
    row: int | None
    field: str | None
    kind: str
    """Stable CamelCase name."""
    message: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Warned:
    """A warning about rows of a file; they are valid."""

    file: str
    kind: str
    """Stable CamelCase name."""
    message: str


@dataclass(kw_only=True)
class Report:
    """Number of rows, the first problems, and the number of problems of each kind."""

    rows: int = 0
    formats: dict[str, DatasetFormat] = field(default_factory=dict)
    """By file; a file without a readable row has none."""
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    """The first `PROBLEMS_KEPT`, in the order of the rows."""
    lengths: Lengths | None = None
    """None if the rows were not tokenised."""
    warnings: list[Warned] = field(default_factory=list)
    invalid: Counter[str] = field(default_factory=Counter)
    """Invalid rows by file."""
    skipped: int = 0
    """Invalid rows that training skips; each is a problem too."""

    @property
    def prevents_training(self) -> bool:
        """Whether training ends with an error."""
        return self.total > self.skipped

    @property
    def total(self) -> int:
        """Number of problems."""
        return self.counts.total()

    def add(self, problem: Problem) -> None:
        """Count a problem, and keep it if it is one of the first."""
        self.counts[problem.kind] += 1
        if len(self.problems) < PROBLEMS_KEPT:
            self.problems.append(problem)

    def add_row(self, file: str, error: RowError) -> None:
        """Count an invalid row of a file."""
        self.invalid[file] += 1
        self.add(_problem_of_row(error))

    def to_json(self) -> dict[str, object]:
        """The camelCase document."""
        document: dict[str, object] = {
            "rows": self.rows,
            "formats": self.formats,
            "problems": self.total,
            "problemsByKind": dict(self.counts.most_common()),
            "firstProblems": [vars(problem) for problem in self.problems],
        }
        if self.skipped:
            document["rowsSkipped"] = self.skipped
        if self.warnings:
            document["warnings"] = [vars(warning) for warning in self.warnings]
        return document if self.lengths is None else {**document, "lengths": self.lengths.to_json()}


Outcome = tuple[Row, Example] | RowError


def validate(
    files: Sequence[ExampleFile], poll: Callable[[], None] = lambda: None, tokens: TokenCheck | None = None
) -> Report:
    """Read every row of the files and continue after each invalid one.

    Args:
        files: The files.
        poll: Called before each row; may raise.
        tokens: Checks the rows with a model's tokenizer; None skips that.

    Raises:
        NotFoundError: a file does not exist.
    """
    report = Report()
    for file in files:
        before, warnings = report.rows, Counter[str]()
        if tokens is not None:
            tokens.begin_file()
        try:
            _validate_file(file, report, poll, tokens, warnings)
            _skip(file, report, report.rows - before)
            if report.rows == before:
                report.add(_problem_of_file(file.name, DataError(f"{file.name} has no rows.", "Add rows.")))
        except RowError as error:
            report.rows += 1
            report.add(_problem_of_row(error))
        except DataError as error:
            report.add(_problem_of_file(file.name, error))
        if tokens is not None:
            _end_tokens(file, report, tokens, warnings)
        for kind, sentence in sentences(warnings, report.rows - before, file.name):
            report.warnings.append(Warned(file=file.name, kind=kind, message=sentence))
    if tokens is not None:
        report.lengths = tokens.lengths
    return report


def _validate_file(
    file: ExampleFile,
    report: Report,
    poll: Callable[[], None],
    tokens: TokenCheck | None,
    warnings: Counter[str],
) -> None:
    for batch in _batches(_outcomes(file, report), 1 if tokens is None else _BATCH_ROWS):
        refused: dict[int, RowError] = {}
        if tokens is not None:
            try:
                refused = tokens.check([outcome for outcome in batch if not isinstance(outcome, RowError)])
            except ConfigurationError as error:
                report.add(_problem_of_file(file.name, error, kind="ChatTemplate"))
                tokens = None
        parsed = 0
        for outcome in batch:
            poll()
            report.rows += 1
            invalid = outcome if isinstance(outcome, RowError) else refused.get(parsed)
            parsed += not isinstance(outcome, RowError)
            if invalid is not None:
                report.add_row(file.name, invalid)
            elif tokens is None and not isinstance(outcome, RowError):
                warnings.update(map(field_ignored, outcome[1].ignored))


def _end_tokens(file: ExampleFile, report: Report, tokens: TokenCheck, warnings: Counter[str]) -> None:
    if (unusable := tokens.end_file(file.name)) is not None:
        report.add(_problem_of_file(file.name, unusable, kind="NothingToLearn"))
    warnings.update(tokens.warnings)


def _skip(file: ExampleFile, report: Report, rows: int) -> None:
    """Count the invalid rows of a file as skipped where training skips them, or report that there are too many."""
    if file.skip_limit is None:
        return
    count = report.invalid[file.name]
    if count <= file.skip_limit * rows:
        report.skipped += count
        return
    error = too_many_invalid(file.name, count, rows, file.skip_limit)
    report.add(_problem_of_file(file.name, error, kind="TooManyInvalidRows"))


def _batches(outcomes: Iterator[Outcome], size: int) -> Iterator[list[Outcome]]:
    batch: list[Outcome] = []
    try:
        for outcome in outcomes:
            batch.append(outcome)
            if len(batch) == size:
                yield batch
                batch = []
    except DataError:
        yield batch  # the rows before the damage
        raise
    yield batch


def _outcomes(file: ExampleFile, report: Report) -> Iterator[Outcome]:
    if file.skip_limit is not None:  # as training does
        report.formats[file.name] = file.resolve_format()
        yield from file.outcomes()
        return
    for row in file.rows():
        if isinstance(row, RowError):
            yield row
            continue
        try:
            yield row, FORMATS[_format_of(file, row, report)].parse(row)
        except RowError as error:
            yield error


def _format_of(file: ExampleFile, row: Row, report: Report) -> DatasetFormat:
    """The file's format: the configured one, or that of its first row that fits one."""
    if file.format != "auto":
        report.formats[file.name] = file.format
        return file.format
    found = detect([row])
    wanted = report.formats.setdefault(file.name, found)
    if found != wanted:
        problem, remedy = (
            f"the row is written as {found}, but earlier ones as {wanted}",
            "Write all rows in one format.",
        )
        raise row.error(problem, remedy, kind="MixedFormats")
    return wanted


def _problem_of_row(error: RowError) -> Problem:
    return Problem(
        file=error.file,
        row=error.row,
        field=error.field,
        kind=error.kind,
        message=error.message,
        remedy=error.advice,
    )


def _problem_of_file(name: str, error: TrainerError, kind: str = "UnreadableFile") -> Problem:
    return Problem(file=name, row=None, field=None, kind=kind, message=error.message, remedy=error.advice)
