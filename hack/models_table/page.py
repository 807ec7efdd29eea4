"""The page with the table, and the table read back from it."""

from __future__ import annotations

from collections.abc import Sequence

from models_table.cells import COLUMNS, Cell, Row

_INTRODUCTION = """\
# Models

What the trainer can do with each architecture (`model_type` in the model's config.json). `make models` writes this
page. Every cell is a run of the trainer on a tiny random model of the architecture, on a CPU in fp32.

- `lora`, `full` and `qlora` are the values of `spec.method`.
- `merged` and `gguf` are exports of a `lora` run. `packing` is a `lora` run with `spec.llm.packing`.
- `yes`: trains and exports. `partly`: does so with the warning of the note.
- `no`: refused before the first step with the sentence of the note (exit code 64).
- Architectures that are missing here are not refused: the trainer loads every causal language model that transformers
  knows, and makes the same checks.
"""


def render(rows: Sequence[Row]) -> str:
    """Return the page: the table, then each note once, numbered in the order of the table."""
    notes: dict[str, int] = {}
    lines = [_line(["architecture", *COLUMNS]), _line(["---"] * (1 + len(COLUMNS)))]
    for row in rows:
        cells = [_text(row.cells[column], notes) for column in COLUMNS]
        lines.append(_line([f"`{row.architecture}`", *cells]))
    listed = [f"{number}. {note}" for note, number in notes.items()]
    return "\n".join([_INTRODUCTION, *lines, "", "## Notes", "", *listed, ""])


def read(text: str) -> dict[str, Row]:
    """Return the rows of a page by architecture, notes resolved."""
    table, _, listed = text.partition("\n## Notes\n")
    notes = dict(line.split(". ", 1) for line in listed.splitlines() if line)
    rows = {}
    for line in table.splitlines():
        if line.startswith("| `"):
            name, *cells = (part.strip() for part in line.strip("|").split("|"))
            name = name.strip("`")
            rows[name] = Row(name, {column: _cell(cell, notes) for column, cell in zip(COLUMNS, cells, strict=True)})
    return rows


def _line(parts: Sequence[str]) -> str:
    return f"| {' | '.join(parts)} |"


def _text(cell: Cell, notes: dict[str, int]) -> str:
    if not cell.note:
        return cell.result
    return f"{cell.result} ({notes.setdefault(cell.note, len(notes) + 1)})"


def _cell(text: str, notes: dict[str, str]) -> Cell:
    result, _, number = text.partition(" (")
    return Cell(result, notes[number.rstrip(")")] if number else "")  # type: ignore[arg-type]
