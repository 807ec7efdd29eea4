"""One cell of the table: a run of the trainer on a tiny model, and what came of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from models_table.architectures import POSITIONS
from trainyard_crds.exitcodes import ExitCode
from trainyard_crds.report import Outcome, Termination
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer import bootstrap
from trainyard_trainer.stop import StopFlag

COLUMNS: Mapping[str, Mapping[str, Any]] = {
    "lora": {"method": "lora"},
    "full": {"method": "full"},
    "qlora": {"method": "qlora"},
    "merged": {"method": "lora", "exports": [{"format": "merged"}]},
    "gguf": {"method": "lora", "exports": [{"format": "gguf"}]},
    "packing": {"method": "lora", "llm": {"packing": True}},
}
"""What a column's run configures; all others train unpacked rows."""
MODEL = "hf://org/model"
"""The model's name in messages."""


@dataclass(frozen=True)
class Cell:
    """What came of a run.

    Attributes:
        result: `yes`, `partly` (with a warning), `no` (refused with a sentence) or `fails` (a fault of the trainer).
        note: What the trainer says of it; empty for `yes`.
    """

    result: Literal["yes", "partly", "no", "fails"]
    note: str = ""


@dataclass(frozen=True)
class Row:
    """All cells of an architecture, by column."""

    architecture: str
    cells: Mapping[str, Cell]

    @property
    def has_failed(self) -> bool:
        """Whether a run ended without a sentence for the user."""
        return any(cell.result == "fails" for cell in self.cells.values())

    @property
    def summary(self) -> str:
        """The row as a line of text."""
        return f"{self.architecture:18} " + " ".join(f"{name} {cell.result};" for name, cell in self.cells.items())


def run_cell(architecture: str, column: str, model: Path, rows: Path, run_directory: Path) -> Cell:
    """Train two steps as the column says, and export."""
    settings = {**COLUMNS[column]}
    llm = {"maxLength": POSITIONS, "packing": False, **settings.pop("llm", {})}
    config = RunConfig.model_validate(
        {
            "runDirectory": str(run_directory),
            "task": "llm",
            "model": {"source": f"file://{model}", "displaySource": MODEL},
            "dataset": {"source": f"file://{rows}"},
            "optimization": {"precision": "fp32", "batchSize": 4, "maxSteps": 2},
            "llm": llm,
            **({} if settings["method"] == "full" else {"adapter": {"rank": 4}}),
            **settings,
        }
    )
    termination = bootstrap.train(config, stop=StopFlag(), environ={})
    return _judged(termination, _events(run_directory), architecture)


def _judged(termination: Termination, events: list[dict[str, Any]], architecture: str) -> Cell:
    if termination.outcome is not Outcome.FINISHED:
        sentence = _general(f"{termination.message} {termination.advice}".strip(), architecture)
        refused = termination.exit_code == ExitCode.BAD_CONFIGURATION
        return Cell("no", sentence) if refused else Cell("fails", f"exit code {termination.exit_code}: {sentence}")
    warnings = [f"Warning: {one.message}" for one in termination.exports if "Warning" in (one.message or "")]
    warnings += [event["message"] for event in events if event["type"] == "PartlyQuantized"]
    return Cell("partly", _general(" ".join(warnings), architecture)) if warnings else Cell("yes")


def _events(run_directory: Path) -> list[dict[str, Any]]:
    path = run_directory / "log.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _general(sentence: str, architecture: str) -> str:
    """Return a sentence without what is particular to the tiny model, so that equal reasons read equal."""
    for pattern, general in (
        (rf"\s*\({re.escape(architecture)}\)", ""),
        (rf"of the architecture {re.escape(architecture)}\b", "of this architecture"),
        (re.escape(MODEL), "the model"),
        (r"\b\d+ ?% of the matrices", "some of the matrices"),
        (r" \(\d+\.\d GiB\)", ""),
        (r"\.\d+\.", ".N."),
    ):
        sentence = re.sub(pattern, general, sentence)
    return sentence[:1].upper() + sentence[1:]
