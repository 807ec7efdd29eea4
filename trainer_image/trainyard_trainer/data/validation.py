"""What is wrong with a dataset: every wrong row, not only the first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from trainyard_crds.trainingjob_inputs import DatasetFormat
from trainyard_trainer.data.formats.detect import PARSERS, detect
from trainyard_trainer.data.formats.example import Example, Row
from trainyard_trainer.data.reader import RowFile
from trainyard_trainer.errors import DataError, RowError

PROBLEMS_KEPT = 100


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong; `row` and `field` are None where the whole file or row is meant."""

    file: str
    row: int | None
    field: str | None
    kind: str
    """Stable CamelCase name."""
    message: str
    remedy: str


@dataclass(kw_only=True)
class Report:
    """The rows of some files, the first problems, and how many there are of each kind."""

    rows: int = 0
    formats: dict[str, DatasetFormat] = field(default_factory=dict)
    """By file; a file without a single readable row has none."""
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    """The first `PROBLEMS_KEPT`, in the order of the rows."""

    @property
    def total(self) -> int:
        """Problems in all."""
        return self.counts.total()

    def add(self, problem: Problem) -> None:
        """Count a problem, and keep it when it is one of the first."""
        self.counts[problem.kind] += 1
        if len(self.problems) < PROBLEMS_KEPT:
            self.problems.append(problem)

    def to_json(self) -> dict[str, object]:
        """The camelCase document."""
        return {
            "rows": self.rows,
            "formats": self.formats,
            "problems": self.total,
            "problemsByKind": dict(self.counts.most_common()),
            "firstProblems": [vars(problem) for problem in self.problems],
        }


def validate(files: Sequence[RowFile], poll: Callable[[], None] = lambda: None) -> Report:
    """Read every row of some files and go on behind each wrong one.

    Args:
        files: What to read.
        poll: Called before each row; may raise.

    Raises:
        NotFoundError: there is no such file.
    """
    report = Report()
    for file in files:
        before = report.rows
        try:
            for outcome in _outcomes(file, report):
                poll()
                report.rows += 1
                if isinstance(outcome, RowError):
                    report.add(_problem_of_row(outcome))
            if report.rows == before:
                report.add(_problem_of_file(file, DataError(f"{file.name} has no rows.", "Add rows.")))
        except RowError as error:
            report.rows += 1
            report.add(_problem_of_row(error))
        except DataError as error:
            report.add(_problem_of_file(file, error))
    return report


def _outcomes(file: RowFile, report: Report) -> Iterator[Example | RowError]:
    for row in file.rows():
        if isinstance(row, RowError):
            yield row
            continue
        try:
            yield PARSERS[_format_of(file, row, report)](row)
        except RowError as error:
            yield error


def _format_of(file: RowFile, row: Row, report: Report) -> DatasetFormat:
    """The file's format: the given one, or that of its first row that fits one."""
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


def _problem_of_file(file: RowFile, error: DataError) -> Problem:
    return Problem(
        file=file.name, row=None, field=None, kind="UnreadableFile", message=error.message, remedy=error.advice
    )
