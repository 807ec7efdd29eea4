"""`trainyard-trainer data validate|convert|split|stats`: datasets on a laptop, without a GPU or a cluster.

transformers and torch are imported only with --model or --config.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from trainyard_crds.runconfig import RunConfig
from trainyard_crds.trainingjob_inputs import DatasetFormat
from trainyard_crds.trainingjob_training import Llm
from trainyard_trainer.configuration import load_config
from trainyard_trainer.data.split import position, threshold
from trainyard_trainer.data.writers import check_output, row_writer
from trainyard_trainer.errors import ConfigurationError, DataError
from trainyard_trainer.sources.files import SCHEME, local_path
from trainyard_trainer.tasks.text.convert import TARGETS, convert, schema_of
from trainyard_trainer.tasks.text.example_file import ExampleFile
from trainyard_trainer.tasks.text.formats.example import TRAIN_ON, Example
from trainyard_trainer.tasks.text.validation import Report, validate

if TYPE_CHECKING:  # needs transformers
    from trainyard_trainer.tasks.text.chat import Encoder
    from trainyard_trainer.tasks.text.token_check import TokenCheck

_MAX_LINES = 20
"""Problems printed without --json."""
OVERLONG = get_args(Llm.model_fields["overlong"].annotation)
Poll = Callable[[], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the commands and their options."""
    commands = parser.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    check = _add(commands, "validate", "check every row; exit 65 if one is invalid", files="*")
    check.add_argument("--config", type=Path, help="a run config that supplies files, model and settings")
    check.add_argument("--overlong", choices=OVERLONG, help="spec.llm.overlong (default: drop)")
    _add_tokenizer(check, "to check its chat template and the length of rows")
    to = _add(commands, "convert", "write the rows in another format")
    to.add_argument("--to", choices=TARGETS, required=True, help="format of the rows")
    to.add_argument("--output", type=Path, required=True, help="the file to write, .jsonl or .parquet")
    parts = _add(commands, "split", "hold out a fraction of the rows, by a hash of each")
    parts.add_argument("--fraction", type=float, required=True, help="fraction of the rows to hold out, in (0, 1)")
    parts.add_argument("--train", type=Path, required=True, help="the file of training rows to write, .jsonl")
    parts.add_argument("--validation", type=Path, required=True, help="the file of held-out rows to write, .jsonl")
    parts.add_argument(
        "--by",
        choices=("row", "prompt"),
        default="row",
        help="keep equal rows, or equal prompts, on one side",
    )
    for command in (to, parts):
        command.add_argument("--force", action="store_true", help="replace existing outputs")
    numbers = _add(commands, "stats", "count rows, duplicates, turns, characters and tokens")
    _add_tokenizer(numbers, "to count tokens")


def _add_tokenizer(parser: argparse.ArgumentParser, purpose: str) -> None:
    parser.add_argument("--model", type=Path, help=f"a directory with a tokenizer, {purpose}")
    parser.add_argument("--max-length", type=int, help="spec.llm.maxLength (default: 2048)")
    parser.add_argument("--train-on", choices=TRAIN_ON, help="spec.llm.trainOn (default: completions)")


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    description: str,
    files: str = "+",
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=description, description=description)
    parser.add_argument("files", type=Path, nargs=files, metavar="FILE", help="a file of rows, or an archive of them")
    parser.add_argument("--format", choices=get_args(DatasetFormat), default="auto", help="format of the rows")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def run(arguments: argparse.Namespace, poll: Poll = lambda: None) -> None:
    """Run one of the commands and print its result.

    Args:
        arguments: The parsed arguments.
        poll: Called before each row; may raise.

    Raises:
        TrainerError: a file cannot be read or written, a row is invalid, or a stop was requested.
    """
    commands = {"validate": _validate, "convert": _convert, "split": _split, "stats": _stats}
    files = [ExampleFile(path=path, name=str(path), format=arguments.format) for path in arguments.files]
    commands[arguments.data_command](arguments, files, poll)


def _print(arguments: argparse.Namespace, document: Mapping[str, object], lines: list[str]) -> None:
    text = json.dumps(document, ensure_ascii=False) if arguments.json else "\n".join(lines)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _validate(arguments: argparse.Namespace, files: list[ExampleFile], poll: Poll) -> None:
    config = None if arguments.config is None else load_config(arguments.config)
    files = files or _files_of(config)
    report = validate(files, poll, _token_check(arguments, config))
    _print(arguments, report.to_json(), _report_lines(report))
    if report.prevents_training:
        names = ", ".join(file.name for file in files[:3]) + (", ..." if len(files) > 3 else "")
        raise DataError(f"{names}: {_problems(report)} in {report.rows:,} rows.", _remedy(files))


def _files_of(config: RunConfig | None) -> list[ExampleFile]:
    """The dataset of a run config.

    Raises:
        ConfigurationError: there is no config, or its files are not on this machine.
    """
    if config is None:
        raise ConfigurationError("There are no files to check.", "Name them, or a run config with --config.")
    data = config.dataset
    sources = {"dataset.source": data.source, "dataset.validation.source": data.validation and data.validation.source}
    return [
        ExampleFile(
            path=_on_this_machine(field, source, "Download it and name the file."),
            name=source.removeprefix(SCHEME),
            format=data.format,
            max_rows=data.max_rows if field == "dataset.source" else None,
            skip_limit=data.skip_limit,
        )
        for field, source in sources.items()
        if source
    ]


def _token_check(arguments: argparse.Namespace, config: RunConfig | None) -> TokenCheck | None:
    """The check with the tokenizer of --model, or of the run config's model; None without either."""
    llm, directory = config.llm if config else Llm(), arguments.model
    if directory is None and config is not None:
        advice = "Download it and name its directory with --model."
        directory = _on_this_machine("model.source", config.model.source, advice)
    if directory is None:
        _refuse_tokenizer_options(arguments)
        return None
    limit = llm.max_length if arguments.max_length is None else arguments.max_length
    from trainyard_trainer.tasks.text.token_check import TokenCheck

    encoder = _encoder(directory, arguments.train_on or llm.train_on, limit)
    return TokenCheck(encoder, limit, arguments.overlong or llm.overlong)


def _refuse_tokenizer_options(arguments: argparse.Namespace) -> None:
    given = {"--max-length": arguments.max_length, "--overlong": arguments.overlong, "--train-on": arguments.train_on}
    for option, value in given.items():
        if value is not None:
            advice = "Name a directory with a tokenizer, or leave the option out."
            raise ConfigurationError(f"{option} has no effect without --model or --config.", advice)


def _on_this_machine(field: str, source: str, advice: str) -> Path:
    if not source.startswith(SCHEME):
        raise ConfigurationError(f"{field} is {source}, which is not on this machine.", advice)
    return local_path(source)


def _encoder(directory: Path, train_on: str, max_length: int) -> Encoder:
    if max_length < 2:
        raise ConfigurationError(f"--max-length is {max_length}.", "Give 2 or more tokens.")
    from trainyard_trainer.tasks.text.chat import Encoder
    from trainyard_trainer.tasks.text.models.tokenizer import load_tokenizer

    return Encoder(load_tokenizer(directory, str(directory)), TRAIN_ON[train_on], str(directory))


def _remedy(files: Sequence[ExampleFile]) -> str:
    if all(file.skip_limit is None for file in files):
        return "Correct or remove these rows, or let training skip invalid ones: spec.dataset.onInvalidRow: skip."
    return "Correct or remove these rows."


def _problems(report: Report) -> str:
    return f"{report.total:,} problem{'s' if report.total != 1 else ''}"


def _report_lines(report: Report) -> list[str]:
    lines = [f"{file}: written as {name}" for file, name in report.formats.items()]
    lines += [f"{report.rows:,} rows, {_problems(report)}"]
    lines += [f"  {count:>8,}  {kind}" for kind, count in report.counts.most_common()]
    lines += [f"{_printable(problem.message)} {problem.remedy}" for problem in report.problems[:_MAX_LINES]]
    hidden = report.total - min(_MAX_LINES, len(report.problems))
    if hidden:
        lines.append(f"... and {hidden:,} more (--json prints the first 100)")
    if report.skipped:
        lines.append(f"Training skips the {report.skipped:,} invalid rows (dataset.onInvalidRow: skip).")
    lines += [f"Warning: {_printable(warning.message)}" for warning in report.warnings]
    return lines if report.lengths is None else [*lines, *(_printable(line) for line in report.lengths.lines())]


def _printable(text: str) -> str:
    """Replace control characters: a row may contain terminal escape sequences."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _convert(arguments: argparse.Namespace, files: list[ExampleFile], poll: Poll) -> None:
    target, count, ignored = arguments.to, 0, Counter[str]()
    with row_writer(arguments.output, force=arguments.force, schema=schema_of(target)) as write:
        for file in files:
            for row, example in file.examples(poll):
                write(convert(row, example, target))
                count += 1
                ignored.update(example.ignored)
    document = {"rows": count, "format": target, "output": str(arguments.output), "fieldsNotWritten": ignored}
    lines = [f"{count:,} rows written as {target} to {arguments.output}"]
    lines += [f"Warning: field '{_printable(name)}' of {rows:,} rows is not written" for name, rows in ignored.items()]
    _print(arguments, document, lines)


def _split(arguments: argparse.Namespace, files: list[ExampleFile], poll: Poll) -> None:
    if not 0 < arguments.fraction < 1:
        raise ConfigurationError(f"--fraction is {arguments.fraction:g}.", "Give a fraction between 0 and 1.")
    outputs = (arguments.train, arguments.validation)
    if outputs[0].absolute() == outputs[1].absolute():
        raise ConfigurationError("--train and --validation name the same file.", "Name two files.")
    for output in outputs:
        check_output(output, force=arguments.force, parquet=False)

    def position_of(example: Example) -> int:
        return position(example.prompt_digest if arguments.by == "prompt" else example.digest)

    limit = _threshold(arguments, files, position_of, poll)
    counts = [0, 0]
    with (
        row_writer(outputs[0], force=arguments.force) as write_train,
        row_writer(outputs[1], force=arguments.force) as write_held,
    ):
        writers = (write_train, write_held)
        for file in files:
            for row, example in file.examples(poll):
                side = position_of(example) < limit
                writers[side](row.values)
                counts[side] += 1
    document = {"trainRows": counts[0], "validationRows": counts[1], "by": arguments.by}
    _print(arguments, document, [f"{counts[0]:,} rows to {outputs[0]}, {counts[1]:,} rows to {outputs[1]}"])


def _threshold(
    arguments: argparse.Namespace, files: list[ExampleFile], position_of: Callable[[Example], int], poll: Poll
) -> int:
    """The first position that is not held out, from a first pass over the rows, which keeps none in memory."""
    smallest, largest = 2**64, -1
    for file in files:
        for _, example in file.examples(poll):
            at = position_of(example)
            smallest, largest = min(smallest, at), max(largest, at)
    limit = threshold(arguments.fraction, smallest)
    if largest < limit:
        problem = f"There are too few different {arguments.by}s to hold out {arguments.fraction:g} and keep the rest."
        raise DataError(problem, "Add rows, or hold out less.")
    return limit


def _stats(arguments: argparse.Namespace, files: list[ExampleFile], poll: Poll) -> None:
    from trainyard_trainer.tasks.text.statistics import measure

    llm = Llm()
    limit = llm.max_length if arguments.max_length is None else arguments.max_length
    train_on = arguments.train_on or llm.train_on
    encoder = None if arguments.model is None else _encoder(arguments.model, train_on, limit)
    document = measure(files, encoder, poll).to_json(limit)
    _print(arguments, document, [line for name, value in document.items() for line in _number_lines(name, value)])


def _number_lines(name: str, value: object) -> list[str]:
    if not isinstance(value, dict):
        return [f"{name:<18} {value if value is not None else '-'}"]
    return [f"{name:<18} " + "  ".join(f"{key} {number:,}" for key, number in value.items())]
