"""`trainyard-trainer compare`: compares a model before and after training."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from trainyard_trainer.tasks.llm.comparison import Comparison, Sample

WIDTH = 100
_COLUMNS = 3
_GAP = 2
_COLUMN = (WIDTH - 2 - (_COLUMNS - 1) * _GAP) // _COLUMNS
_LONGEST_CELL = 10
_BAR = 34


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--model", required=True, help="base model: a directory, or hf://org/name")
    parser.add_argument("--adapter", type=Path, required=True, help="the trained adapter or model directory")
    parser.add_argument("--data", type=Path, required=True, help="held-out rows, a JSON Lines file")
    parser.add_argument("--method", choices=("lora", "qlora", "full"), default="lora", help="training method")
    parser.add_argument("--samples", type=int, default=3, help="number of questions to answer (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="seed for the choice of questions (default: 0)")
    parser.add_argument("--json", action="store_true", help="also print the numbers as one line of JSON")


def run(arguments: argparse.Namespace, poll: Callable[[], None] = lambda: None) -> int:
    """Run the comparison and print it.

    Args:
        arguments: Parsed options of `add_arguments`.
        poll: Called repeatedly; may raise.

    Returns:
        The exit code, 0.

    Raises:
        TrainerError: The model, the adapter or the rows cannot be fetched or used.
    """
    import torch

    from trainyard_crds.runconfig import RunModelSource
    from trainyard_trainer.sources.resolve import resolve_model
    from trainyard_trainer.tasks.llm.comparison import Comparer
    from trainyard_trainer.tasks.text.example_file import ExampleFile

    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    source = arguments.model if "://" in arguments.model else Path(arguments.model).absolute().as_uri()
    base = resolve_model(RunModelSource(source=source), _Unresolved(), poll)
    comparer = Comparer(base, arguments.adapter, method=arguments.method, device=device, poll=poll)
    file = ExampleFile(path=arguments.data, name=str(arguments.data))
    comparison = comparer.compare(file, samples=arguments.samples, seed=arguments.seed)
    _print(comparison, sys.stdout, as_json=arguments.json)
    return 0


class _Unresolved:
    """Stores nothing: a comparison uses the current revision of a hub model."""

    def get(self, _key: str) -> str | None:
        return None

    def put(self, key: str, value: str) -> None:
        pass


def _print(comparison: Comparison, output: TextIO, *, as_json: bool) -> None:
    output.write(render(comparison))
    if as_json:
        output.write(f"{json.dumps(document(comparison))}\n")


def document(comparison: Comparison) -> dict[str, object]:
    """Return the comparison as JSON values."""
    return {
        "rows": comparison.rows,
        "tokens": comparison.tokens,
        "evalLoss": {
            "before": comparison.before,
            "after": comparison.after,
            "afterShuffled": comparison.after_shuffled,
        },
        "changePercent": comparison.change_percent,
        "samples": [vars(sample) for sample in comparison.samples],
    }


def render(comparison: Comparison) -> str:
    """Return the comparison as text, at most `WIDTH` columns wide."""
    title = f"Held-out loss: {comparison.rows:,} rows, {comparison.tokens:,} answer tokens (nats per token)"
    losses: list[tuple[str, float]] = [("before training", comparison.before), ("after training", comparison.after)]
    if comparison.after_shuffled is not None:
        losses.append(("after, with another row's question", comparison.after_shuffled))
    highest = max(loss for _, loss in losses)
    lines = ["", title, "\N{BOX DRAWINGS LIGHT HORIZONTAL}" * WIDTH]
    lines += [_loss_line(name, loss, highest, comparison.before) for name, loss in losses]
    for number, sample in enumerate(comparison.samples, start=1):
        lines += ["", *_sample_lines(sample, number, len(comparison.samples))]
    return "\n".join([*lines, "", ""])


def _loss_line(name: str, loss: float, highest: float, before: float) -> str:
    bar = "\N{FULL BLOCK}" * max(1, round(_BAR * loss / highest)) if highest > 0 else ""
    change = f"{100 * (loss / before - 1):+.1f} %" if before > 0 and loss != before else ""
    return f"  {name:<36} {loss:>8.4f}  {bar:<{_BAR}}  {change:>9}".rstrip()


def _sample_lines(sample: Sample, number: int, count: int) -> list[str]:
    question = textwrap.wrap(_printable(sample.question), WIDTH - 2, max_lines=4, placeholder=" ...")
    cells = [
        ["Reference", _rule(), *_cell(sample.reference)],
        ["Before", _rule(), *_cell(sample.before)],
        ["After", _rule(), *_cell(sample.after)],
    ]
    title = f"Question {number} of {count} ".ljust(WIDTH, "\N{BOX DRAWINGS LIGHT HORIZONTAL}")
    return [title, *(f"  {line}" for line in question), "", *_side_by_side(cells)]


def _rule() -> str:
    return "\N{BOX DRAWINGS LIGHT HORIZONTAL}" * _COLUMN


def _cell(text: str) -> list[str]:
    return textwrap.wrap(_printable(text), _COLUMN, max_lines=_LONGEST_CELL, placeholder=" ...") or ["(nothing)"]


def _side_by_side(cells: Sequence[Sequence[str]]) -> list[str]:
    """Return the columns side by side."""
    height = max(map(len, cells))
    padded = [[*cell, *[""] * (height - len(cell))] for cell in cells]
    gap = " " * _GAP
    return [f"  {gap.join(f'{part:<{_COLUMN}}' for part in row)}".rstrip() for row in zip(*padded, strict=True)]


def _printable(text: str) -> str:
    """Replace control characters, which a model may generate, by spaces."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
