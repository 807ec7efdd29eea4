"""The training state beside the weights, and its form in a checkpoint: tensors and JSON, nothing pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from trainyard_trainer.engine.loss_accumulator import LossAccumulator
from trainyard_trainer.engine.master_weights import MasterWeights
from trainyard_trainer.engine.optimizer import pack_optimizer, unpack_optimizer
from trainyard_trainer.engine.rng import RngState
from trainyard_trainer.engine.step_plan import Cursor
from trainyard_trainer.objective import Objective

_TENSORS = "tensors.safetensors"
_DOCUMENT = "state.json"
_STORED_NAMES = {"items": "tokens", "best_value": "best_loss"}
"""Names in state.json that differ from those in memory: a newer trainer resumes the checkpoints of an older one."""

UNSAVED_OBJECTIVE = Objective("evalLoss", "minimize")
"""The objective of checkpoints that do not name one: older trainers had no other."""


@dataclass
class TrainingState:
    """The position of a run and its latest metrics."""

    step: int = 0
    """Optimizer steps done."""
    cursor: Cursor = field(default_factory=Cursor)
    items: int = 0
    """Items trained on, in the unit of the task: real (not padded) tokens, images."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Latest value of every metric."""
    evaluation: dict[str, float] = field(default_factory=dict)
    """Metrics of the latest evaluation."""
    evaluated_step: int | None = None
    logged_step: int | None = None
    best_value: float | None = None
    """Best value of the objective's metric so far."""
    evaluations_since_best: int = 0
    """Evaluations in a row without a better value."""
    objective: Objective = UNSAVED_OBJECTIVE
    """The objective of `best_value`."""

    def judge_by(self, objective: Objective) -> None:
        """Forget the best value where it is one of another objective."""
        if self.objective != objective:
            self.best_value, self.evaluations_since_best = None, 0
        self.objective = objective

    def own_metrics(self) -> dict[str, float]:
        """Return the metrics of the current step; an older evaluation is not one of these weights."""
        if self.evaluated_step == self.step:
            return dict(self.metrics)
        return {name: value for name, value in self.metrics.items() if name not in self.evaluation}


def pack_peer(losses: LossAccumulator, rng: RngState) -> dict[str, Any]:
    """Return the state that each process has for itself, as JSON; that of the main process is in `pack_state`."""
    loss_sum, _loss_weight = losses.pack()
    return {"rng": rng.to_json(), "windowLoss": float(loss_sum.item())}


def pack_state(
    *,
    state: TrainingState,
    optimizer: Optimizer,
    masters: MasterWeights,
    losses: LossAccumulator,
    rng: RngState,
    metrics_length: int,
    peers: Sequence[dict[str, Any]] = (),
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return everything but the weights: tensors (the run's own, no copies) and JSON values (copies).

    Args:
        state: The position of the run.
        optimizer: Its state is packed; its settings come from the config.
        masters: What the optimizer updates.
        losses: Those not yet logged.
        rng: The generators after the last step.
        metrics_length: Bytes of metrics.jsonl that belong to this state.
        peers: What `pack_peer` returned in the other processes, by rank from 1 on.
    """
    optimizer_tensors, optimizer_scalars = pack_optimizer(optimizer)
    loss_sum, loss_weight = losses.pack()
    tensors = _prefixed("optimizer", optimizer_tensors) | _prefixed("master", masters.tensors())
    tensors |= _prefixed("rng", rng.tensors()) | {"window.loss": loss_sum}
    document = {
        "training": _stored(state),
        "optimizer": optimizer_scalars,
        "rng": rng.scalars(),
        "windowTokens": loss_weight,
        "metricsLength": metrics_length,
        "peers": list(peers),
    }
    return tensors, document


def write_state(directory: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Write what `pack_state` returned, or a copy of it."""
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, directory / _TENSORS)
    (directory / _DOCUMENT).write_text(json.dumps(document), encoding="utf-8")


def read_state(
    directory: Path, *, optimizer: Optimizer, masters: MasterWeights, losses: LossAccumulator, rank: int = 0
) -> tuple[TrainingState, RngState, int]:
    """Restore optimizer, master weights and losses as they were in the process of that rank.

    Returns:
        The position of the run, its generators, and the bytes of metrics.jsonl that belong to it.
    """
    tensors = load_file(directory / _TENSORS)
    document = json.loads((directory / _DOCUMENT).read_text(encoding="utf-8"))
    unpack_optimizer(optimizer, _without_prefix("optimizer", tensors), document["optimizer"])
    masters.restore(_without_prefix("master", tensors))
    if rank == 0:
        loss_sum, rng = tensors["window.loss"], RngState.from_parts(_without_prefix("rng", tensors), document["rng"])
    else:
        peer = document["peers"][rank - 1]
        loss_sum, rng = torch.tensor(peer["windowLoss"], dtype=torch.float64), RngState.from_json(peer["rng"])
    losses.unpack(loss_sum, document["windowTokens"])
    return _training_state(document["training"]), rng, document["metricsLength"]


def _stored(state: TrainingState) -> dict[str, Any]:
    return {_STORED_NAMES.get(name, name): value for name, value in asdict(state).items()}


def _training_state(stored: dict[str, Any]) -> TrainingState:
    names = {old: name for name, old in _STORED_NAMES.items()}
    values = {names.get(name, name): value for name, value in stored.items()}
    if "objective" in values:
        values["objective"] = Objective(**values["objective"])
    return TrainingState(**{**values, "cursor": Cursor(**values["cursor"])})


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _without_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, torch.Tensor]:
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
