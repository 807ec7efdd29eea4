"""What a task says so that the engine can train it.

The engine knows steps, gradients, checkpoints and reports; a task knows models, rows and losses. Micro-batches are
addressed by (epoch, index), so a run resumes at the exact sample without replaying anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trainyard_crds.exports import Export
from trainyard_crds.report import MemoryEstimate, Stage
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.group.group import Group
from trainyard_trainer.stop import StopFlag


class MicroBatch(Protocol):
    """The input of one forward pass, on the CPU."""

    @property
    def loss_weight(self) -> float:
        """What the summed loss is divided by for its mean, added up over a step: loss tokens, images or pixels."""

    @property
    def num_items(self) -> int:
        """What throughput counts, in the unit of `Loaded.unit`: real (not padded) tokens, images."""


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
        """File and row number (from 1) of each row of a micro-batch, as a user finds them."""


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Parameters that share a learning rate and weight decay; `name` appears in metrics."""

    name: str
    parameters: Sequence[nn.Parameter]
    learning_rate: float
    weight_decay: float


class Resolved(Protocol):
    """resolved.json: what only the trainer can resolve (a hub revision) is resolved once and reused on resume."""

    def get(self, key: str) -> str | None:
        """The value of an earlier start of this run, or None."""

    def put(self, key: str, value: str) -> None:
        """Remember a value for every later start of this run."""


class ResolvedValues(Resolved, Protocol):
    """What is resolved, as the processes of a group tell each other."""

    values: dict[str, str]
    """All that is known; may be added to."""


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What the engine lends a task."""

    config: RunConfig
    run_directory: Path
    device: torch.device
    stop: StopFlag
    resolved: ResolvedValues
    stage: Callable[[Stage], None]
    """Announce what is being done."""
    log: Callable[[str, str], None]
    """Log (type, sentence), for example ("RowsDropped", "12 of 300 rows are longer than ...")."""
    progress: Callable[[float], None] = lambda _percent: None
    """Share of the current stage done, 0 to 100: of a download or a copy."""
    memory: Callable[[MemoryEstimate, str], None] = lambda _estimate, _advice: None
    """Report the predicted peak of one device, and what to say should it not be enough."""
    group: Group = field(default_factory=Group)
    """The processes that train together."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Metrics known before the first step (packing efficiency, dropped rows); reported with every report."""


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
    """What throughput counts: reported as `<unit>PerSecond`."""
    flops_per_item: float | None = None
    """Operations of forward and backward pass for one of them, where the task knows."""


@dataclass(frozen=True, kw_only=True)
class ExportNotes:
    """What a task says about an export it made."""

    message: str | None = None
    """A sentence for the log and the status."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the record of the export says beside the files; no times, no paths."""


class Task(Protocol):
    """One kind of training."""

    def load(self, context: RunContext) -> Loaded:
        """Fetch and load model and data; polls `context.stop`."""

    def loss(self, loaded: Loaded, batch: MicroBatch) -> Tensor:
        """Return the loss summed over the batch, to be divided by its `loss_weight`; scalar, differentiable."""

    def evaluate(self, loaded: Loaded, context: RunContext) -> dict[str, float]:
        """Measure every metric of the task's definition on the held-out rows."""

    def weights(self, loaded: Loaded) -> Mapping[str, Tensor]:
        """The trained weights by name: the very tensors that training changes. Asked for once, by the first save."""

    def save_weights(self, loaded: Loaded, weights: Mapping[str, Tensor], directory: Path) -> None:
        """Write a copy of `weights` as safetensors, in the form a user loads: a PEFT or a transformers directory.

        Runs in another thread while training goes on: it must not read the model's tensors, nor change anything.
        """

    def load_weights(self, loaded: Loaded, directory: Path) -> None:
        """Put back what `save_weights` wrote, bit for bit."""

    def export(
        self, loaded: Loaded, context: RunContext, request: Export, weights: Path, directory: Path
    ) -> ExportNotes:
        """Make an export from a checkpoint's weights in an empty directory; polls `context.stop`."""

    def export_saved(self, context: RunContext, request: Export, weights: Path, directory: Path) -> ExportNotes:
        """Like `export`, of a run that has finished: loads by itself what the format takes, and no more."""
