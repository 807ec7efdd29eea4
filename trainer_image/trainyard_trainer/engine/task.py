"""The interface between the engine and a task.

The engine runs steps, gradients, checkpoints and reports; a task provides the model, the rows and the loss.
Micro-batches are addressed by (epoch, index), so a run resumes at the exact sample without replaying anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trainyard_crds.exports import Export
from trainyard_crds.report import InvalidRows, MemoryEstimate, Stage
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.group.group import Group
from trainyard_trainer.resolved import Resolved
from trainyard_trainer.stop import StopFlag


class MicroBatch(Protocol):
    """The input of one forward pass, on the CPU."""

    @property
    def loss_weight(self) -> float:
        """Divisor of the summed loss, added up over a step: loss tokens, images or pixels."""

    @property
    def num_items(self) -> int:
        """Items for throughput, in the unit of `Loaded.unit`: real (not padded) tokens, images."""


class TrainData(Protocol):
    """Training rows as micro-batches, the same for the same config, seed and data."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the rows and every setting that decides the micro-batches."""

    def num_micro_batches(self, epoch: int) -> int:
        """Micro-batches of one pass, at least 1."""

    def micro_batch(self, epoch: int, index: int) -> MicroBatch:
        """One micro-batch; the order differs from epoch to epoch."""

    def origins(self, epoch: int, index: int) -> Sequence[tuple[str, int]]:
        """File and row number (from 1) of each row of a micro-batch, for error messages."""


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Parameters that share a learning rate and weight decay; `name` appears in metrics."""

    name: str
    parameters: Sequence[nn.Parameter]
    learning_rate: float
    weight_decay: float


class ResolvedValues(Resolved, Protocol):
    """Resolved values that the processes of a group share."""

    values: dict[str, str]
    """All values; may be added to."""


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What the engine provides to a task."""

    config: RunConfig
    run_directory: Path
    device: torch.device
    stop: StopFlag
    resolved: ResolvedValues
    stage: Callable[[Stage], None]
    """Report the current stage."""
    log: Callable[[str, str], None]
    """Log (type, sentence), for example ("RowsDropped", "12 of 300 rows are longer than ...")."""
    progress: Callable[[float], None] = lambda _percent: None
    """Report the share of the current stage done, 0 to 100: of a download or a copy."""
    memory: Callable[[MemoryEstimate, str], None] = lambda _estimate, _advice: None
    """Report the predicted peak of one device, and the advice for a run that ends without memory."""
    invalid_rows: Callable[[InvalidRows], None] = lambda _rows: None
    """Report the rows that are skipped because they are invalid."""
    group: Group = field(default_factory=Group)
    """The processes that train together."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Metrics known before the first step (packing efficiency, dropped rows); part of every report."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model and its data, ready to train."""

    model: nn.Module
    train: TrainData
    has_evaluation: bool
    parameter_groups: Sequence[ParameterGroup]
    model_source: str
    model_revision: str | None
    unit: str = "tokens"
    """Unit of throughput, reported as `<unit>PerSecond`."""
    flops_per_item: float | None = None
    """Operations of forward and backward pass for an item; None if unknown."""


@dataclass(frozen=True, kw_only=True)
class ExportNotes:
    """What the record of an export adds to its files."""

    message: str | None = None
    """A sentence for the log and the status."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Facts without times and paths: the same run leaves the same record."""


class Task(Protocol):
    """One kind of training."""

    def load(self, context: RunContext) -> Loaded:
        """Fetch and load model and data; polls `context.stop`."""

    def loss(self, loaded: Loaded, batch: MicroBatch) -> Tensor:
        """Return the loss summed over the batch, to be divided by its `loss_weight`; scalar, differentiable."""

    def evaluate(self, loaded: Loaded, context: RunContext) -> dict[str, float]:
        """Measure every metric of the task's definition on the held-out rows."""

    def weights(self, loaded: Loaded) -> Mapping[str, Tensor]:
        """Return the trained weights by name: the tensors that training changes. Called once, by the first save."""

    def save_weights(self, loaded: Loaded, weights: Mapping[str, Tensor], directory: Path) -> None:
        """Write a copy of `weights` as safetensors, in the form a user loads: a PEFT or a transformers directory.

        Runs in another thread during training: it must not read the model's tensors or change anything.
        """

    def load_weights(self, loaded: Loaded, directory: Path) -> None:
        """Load what `save_weights` wrote, bit for bit."""

    def export(
        self, loaded: Loaded, context: RunContext, request: Export, weights: Path, directory: Path
    ) -> ExportNotes:
        """Write an export of a checkpoint's weights into an empty directory; polls `context.stop`."""

    def export_saved(self, context: RunContext, request: Export, weights: Path, directory: Path) -> ExportNotes:
        """Like `export`, for a finished run: load only what the format needs."""
