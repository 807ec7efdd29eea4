"""What an export format of a text model is: one entry of a task's table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainyard_crds.exports import Export
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.engine.task import RunContext
from trainyard_trainer.sources.resolve import LocalModel
from trainyard_trainer.tasks.text.batches import TextBatch
from trainyard_trainer.tasks.text.export.logit_diff import LogitDiff


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """One export to write, and what it is made from.

    Attributes:
        context: The run.
        request: The format and its options.
        base: The base model.
        tokenizer: Its tokenizer.
        model: The trained model; None where the format is not made from it.
        probe: Rows on which models are compared; None where the format is not compared.
        weights: A checkpoint's weights.
        directory: An empty directory.
    """

    context: RunContext
    request: Export
    base: LocalModel
    tokenizer: Any
    model: Any
    probe: TextBatch | None
    weights: Path
    directory: Path

    @property
    def config(self) -> RunConfig:
        """The run config."""
        return self.context.config

    def poll(self) -> None:
        """Raise StopRequested once the run is to stop."""
        self.context.stop.check()


def accept(_base: LocalModel) -> None:
    """Accept every base model."""


def no_remark(_tokenizer: Any) -> str | None:
    """Return None: the export does what the trained model does."""
    return None


@dataclass(frozen=True, kw_only=True)
class ExportFormat:
    """How one format is written.

    Attributes:
        title: Heading of the export's README, before the base model's name.
        usage: The README's example of how the export is loaded.
        write: Write the export; returns its difference to the trained model where that was measured.
        check: Refuse, before rows are read, a base model whose export could not be written.
        remark: What a user of an export with this tokenizer must know; None for nothing.
        merges: Whether an adapter is merged into the base model.
        compares: Whether the export is compared with the trained model on training rows.
    """

    title: str
    usage: Callable[[LocalModel], str]
    write: Callable[[ExportJob], LogitDiff | None]
    check: Callable[[LocalModel], None] = accept
    remark: Callable[[Any], str | None] = no_remark
    merges: bool = False
    compares: bool = False
