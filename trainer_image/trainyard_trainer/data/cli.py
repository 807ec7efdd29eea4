"""`trainyard-trainer data validate|convert|split|stats`: datasets on a laptop, without a GPU, a cluster or torch.

Only `stats --model` loads more: the tokenizer of a model, and with it transformers.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import get_args

from trainyard_crds.trainingjob_inputs import DatasetFormat
from trainyard_trainer.data.convert import TARGETS, convert
from trainyard_trainer.data.formats.example import TRAIN_ON, Example
from trainyard_trainer.data.reader import RowFile
from trainyard_trainer.data.split import position, threshold
from trainyard_trainer.data.validation import Report, validate
from trainyard_trainer.data.writers import check_output, row_writer
from trainyard_trainer.errors import ConfigurationError, DataError

_SHOWN = 20
Poll = Callable[[], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the commands and their options."""
    commands = parser.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    _add(commands, "validate", "check every row; exit 65 when one is wrong")
    to = _add(commands, "convert", "write the rows in another format")
    to.add_argument("--to", choices=TARGETS, required=True, help="format of the rows")
    to.add_argument("--output", type=Path, required=True, help="the file to write, .jsonl or .parquet")
    parts = _add(commands, "split", "hold out a share of the rows, by a hash of each")
    parts.add_argument("--fraction", type=float, required=True, help="share of the rows to hold out, in (0, 1)")
    parts.add_argument("--train", type=Path, required=True, help="the file of training rows to write, .jsonl")
    parts.add_argument("--validation", type=Path, required=True, help="the file of held-out rows to write, .jsonl")
    parts.add_argument(
        "--by", choices=("row", "prompt"), default="row", help="what stays together: equal rows, or equal prompts too"
    )
    for command in (to, parts):
        command.add_argument("--force", action="store_true", help="replace outputs that exist")
    numbers = _add(commands, "stats", "count rows, duplicates, turns, characters and tokens")
    numbers.add_argument("--model", type=Path, help="a directory with a tokenizer, to count tokens")
    numbers.add_argument("--max-length", type=int, default=2048, help="spec.llm.maxLength (default: 2048)")
    numbers.add_argument("--train-on", choices=TRAIN_ON, default="completions", help="spec.llm.trainOn")


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    description: str,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=description, description=description)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="a file of rows, or an archive of them")
    parser.add_argument("--format", choices=get_args(DatasetFormat), default="auto", help="format of the rows")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def run(arguments: argparse.Namespace, poll: Poll = lambda: None) -> None:
    """Run one of the commands and print what it found.

    Args:
        arguments: What `add_arguments` declared, parsed.
        poll: Called again and again; may raise.

    Raises:
        TrainerError: a file cannot be read or written, a row is wrong, or a request to stop arrived.
    """
    commands = {"validate": _validate, "convert": _convert, "split": _split, "stats": _stats}
    files = [RowFile(path=path, name=str(path), format=arguments.format) for path in arguments.files]
    commands[arguments.data_command](arguments, files, poll)


def _print(arguments: argparse.Namespace, document: Mapping[str, object], lines: list[str]) -> None:
    text = json.dumps(document, ensure_ascii=False) if arguments.json else "\n".join(lines)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _validate(arguments: argparse.Namespace, files: list[RowFile], poll: Poll) -> None:
    report = validate(files, poll)
    _print(arguments, report.to_json(), _report_lines(report))
    if report.total:
        names = ", ".join(file.name for file in files[:3]) + (", ..." if len(files) > 3 else "")
        raise DataError(f"{names}: {report.total:,} problems in {report.rows:,} rows.", "Correct or remove these rows.")


def _report_lines(report: Report) -> list[str]:
    lines = [f"{file}: written as {name}" for file, name in report.formats.items()]
    lines += [f"{report.rows:,} rows, {report.total:,} problems"]
    lines += [f"  {count:>8,}  {kind}" for kind, count in report.counts.most_common()]
    lines += [f"{_printable(problem.message)} {problem.remedy}" for problem in report.problems[:_SHOWN]]
    hidden = report.total - min(_SHOWN, len(report.problems))
    return [*lines, f"... and {hidden:,} more (--json prints the first 100)"] if hidden else lines


def _printable(text: str) -> str:
    """Rows may hold anything, control sequences of terminals too."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _convert(arguments: argparse.Namespace, files: list[RowFile], poll: Poll) -> None:
    target, count = TARGETS[arguments.to], 0
    with row_writer(arguments.output, force=arguments.force, target=target) as write:
        for file in files:
            for row, example in file.examples(poll):
                write(convert(row, example, target))
                count += 1
    document = {"rows": count, "format": target, "output": str(arguments.output)}
    _print(arguments, document, [f"{count:,} rows written as {target} to {arguments.output}"])


def _split(arguments: argparse.Namespace, files: list[RowFile], poll: Poll) -> None:
    if not 0 < arguments.fraction < 1:
        raise ConfigurationError(f"--fraction is {arguments.fraction:g}.", "Give a share between 0 and 1.")
    outputs = (arguments.train, arguments.validation)
    if outputs[0].absolute() == outputs[1].absolute():
        raise ConfigurationError("--train and --validation name the same file.", "Name two.")
    for output in outputs:
        check_output(output, force=arguments.force, parquet=False)

    def place(example: Example) -> int:
        return position(example.prompt_digest if arguments.by == "prompt" else example.digest)

    limit = _threshold(arguments, files, place, poll)
    counts = [0, 0]
    with (
        row_writer(outputs[0], force=arguments.force) as write_train,
        row_writer(outputs[1], force=arguments.force) as write_held,
    ):
        writers = (write_train, write_held)
        for file in files:
            for row, example in file.examples(poll):
                side = place(example) < limit
                writers[side](row.values)
                counts[side] += 1
    document = {"trainRows": counts[0], "validationRows": counts[1], "by": arguments.by}
    _print(arguments, document, [f"{counts[0]:,} rows to {outputs[0]}, {counts[1]:,} rows to {outputs[1]}"])


def _threshold(arguments: argparse.Namespace, files: list[RowFile], place: Callable[[Example], int], poll: Poll) -> int:
    """The first place that is not held out; a first pass over the rows, so that no row need stay in memory."""
    smallest, largest = 2**64, -1
    for file in files:
        for _, example in file.examples(poll):
            at = place(example)
            smallest, largest = min(smallest, at), max(largest, at)
    limit = threshold(arguments.fraction, smallest)
    if largest < limit:
        problem = f"There are too few different {arguments.by}s to hold out {arguments.fraction:g} and keep the rest."
        raise DataError(problem, "Add rows, or hold out less.")
    return limit


def _stats(arguments: argparse.Namespace, files: list[RowFile], poll: Poll) -> None:
    from trainyard_trainer.data.statistics import measure

    encoder = None
    if arguments.max_length < 2:
        raise ConfigurationError(f"--max-length is {arguments.max_length}.", "Give 2 or more tokens.")
    if arguments.model is not None:
        from trainyard_trainer.data.chat import Encoder
        from trainyard_trainer.models.loading import load_tokenizer

        tokenizer = load_tokenizer(arguments.model, str(arguments.model))
        encoder = Encoder(tokenizer, TRAIN_ON[arguments.train_on], str(arguments.model))
    document = measure(files, encoder, poll).to_json(arguments.max_length)
    _print(arguments, document, [line for name, value in document.items() for line in _number_lines(name, value)])


def _number_lines(name: str, value: object) -> list[str]:
    if not isinstance(value, dict):
        return [f"{name:<18} {value if value is not None else '-'}"]
    return [f"{name:<18} " + "  ".join(f"{key} {number:,}" for key, number in value.items())]
