"""A toy task: a tiny network with dropout on random rows, trained by the real engine."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util import tensor_util
from torch import Tensor, nn

from tests.unit.trainer.definitions import replace_llm
from trainyard_crds.exports import Export
from trainyard_crds.report import Stage, Termination
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer import bootstrap
from trainyard_trainer.checkpoint.files import Files
from trainyard_trainer.engine.task import ExportNotes, Loaded, MicroBatch, ParameterGroup, RunContext
from trainyard_trainer.group.membership import LAUNCHER_ENV
from trainyard_trainer.stop import StopFlag

WIDTH = 4


@dataclass(frozen=True)
class ToyBatch:
    rows: Tensor
    targets: Tensor

    @property
    def loss_weight(self) -> float:
        return len(self.targets)

    @property
    def num_items(self) -> int:
        return 2 * len(self.targets)


class ToyData:
    def __init__(self, num_batches: int = 10, batch_size: int = 3, fingerprint: str = "f" * 64) -> None:
        generator = torch.Generator().manual_seed(7)
        self._rows = torch.randn(num_batches, batch_size, WIDTH, generator=generator)
        self._fingerprint = fingerprint

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def num_micro_batches(self, epoch: int) -> int:
        return len(self._rows)

    def micro_batch(self, epoch: int, index: int) -> ToyBatch:
        rows = self._rows[(index * 3 + epoch) % len(self._rows)]
        return ToyBatch(rows, rows.sum(-1) + 0.1)

    def origins(self, epoch: int, index: int) -> list[tuple[str, int]]:
        return [("toy.jsonl", (index * 3 + epoch) % len(self._rows) + 1)]


class ToyTask:
    """A task whose calls can be intercepted.

    Args:
        hooks: By method name, a function that is called with the number of the call (from 1) before the method runs.
        bad_loss: Number of the call of `loss` that returns NaN.
    """

    def __init__(
        self,
        *,
        learning_rate: float | None = None,
        has_evaluation: bool = True,
        evaluations: list[float] | None = None,
        data: ToyData | None = None,
        hooks: dict[str, Callable[[int], None]] | None = None,
        dropout: float = 0.2,
        bad_loss: int | None = None,
    ) -> None:
        self._learning_rate = learning_rate
        self._has_evaluation = has_evaluation
        self._evaluations = evaluations
        self._data = data or ToyData()
        self._hooks = hooks or {}
        self._dropout = dropout
        self._bad_loss = bad_loss
        self._calls: dict[str, int] = {}
        self.context: RunContext | None = None

    def _called(self, name: str) -> int:
        self._calls[name] = self._calls.get(name, 0) + 1
        if name in self._hooks:
            self._hooks[name](self._calls[name])
        return self._calls[name]

    def load(self, context: RunContext) -> Loaded:
        self._called("load")
        context.stop.check()
        context.stage(Stage.LOADING_MODEL)
        self.context = context
        model = nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Dropout(self._dropout), nn.Linear(8, 1)).to(
            context.device
        )
        rate = self._learning_rate or context.config.optimization.learning_rate
        group = ParameterGroup(name="all", parameters=list(model.parameters()), learning_rate=rate, weight_decay=0.01)
        return Loaded(
            model=model,
            train=self._data,
            has_evaluation=self._has_evaluation,
            parameter_groups=[group],
            model_source="toy://model",
            model_revision="1",
        )

    def loss(self, loaded: Loaded, batch: MicroBatch) -> Tensor:
        call = self._called("loss")
        assert isinstance(batch, ToyBatch)
        device = next(loaded.model.parameters()).device
        predicted = loaded.model(batch.rows.to(device)).squeeze(-1)
        errors: Tensor = predicted - batch.targets.to(device)
        return errors.square().sum() * (float("nan") if call == self._bad_loss else 1.0)

    def evaluate(self, loaded: Loaded, context: RunContext) -> dict[str, float]:
        call = self._called("evaluate")
        context.group.check_stop(context.stop.check)
        loaded.model.eval()
        torch.rand(3)
        if self._evaluations is not None:
            return {"evalLoss": self._evaluations[min(call, len(self._evaluations)) - 1]}

        def measure(index: int) -> tuple[float, float]:
            batch = self._data.micro_batch(0, index)
            return float(self.loss(loaded, batch).item()), batch.loss_weight

        with torch.no_grad():
            return {"evalLoss": context.group.weighted_mean(range(1), measure, context.stop.check)}

    def weights(self, loaded: Loaded) -> Mapping[str, Tensor]:
        return loaded.model.state_dict()

    def save_weights(self, loaded: Loaded, weights: Mapping[str, Tensor], directory: Path) -> None:
        self._called("save_weights")
        save_file(dict(weights), directory / "model.safetensors")

    def load_weights(self, loaded: Loaded, directory: Path) -> None:
        self._called("load_weights")
        loaded.model.load_state_dict(load_file(directory / "model.safetensors"))

    def export(
        self, loaded: Loaded, context: RunContext, request: Export, weights: Path, directory: Path
    ) -> ExportNotes:
        self._called("export")
        save_file(load_file(weights / "model.safetensors"), directory / "model.safetensors")
        return ExportNotes(message=f"Made as {request.format}.")

    def export_saved(self, context: RunContext, request: Export, weights: Path, directory: Path) -> ExportNotes:
        self._called("export_saved")
        context.stop.check()
        save_file(load_file(weights / "model.safetensors"), directory / "model.safetensors")
        return ExportNotes(message=f"Made as {request.format}, later.")


def run_config(run_directory: Path, **blocks: Any) -> RunConfig:
    """Return a config with 12 steps of 4 micro-batches over 4 epochs, saved and evaluated every 3 steps."""
    document: dict[str, Any] = {
        "runDirectory": str(run_directory),
        "task": "llm",
        "method": "full",
        "model": {"source": "file:///toy"},
        "dataset": {"source": "file:///toy"},
        "optimization": {"learningRate": 0.01, "epochs": 4, "loggingSteps": 2},
        "checkpoints": {"everySteps": 3},
    }
    for name, values in blocks.items():
        document[name] = {**document.get(name, {}), **values} if isinstance(values, dict) else values
    return RunConfig.model_validate(document)


def train_toy(config: RunConfig, task: ToyTask, stop: StopFlag | None = None) -> Termination:
    """Run one attempt in this process."""
    with pytest.MonkeyPatch.context() as patch:
        replace_llm(lambda: task, patch)
        return bootstrap.train(config, stop=stop or StopFlag(), environ={})


def exported(run_directory: Path) -> bytes:
    """Return the exported weights."""
    return (run_directory / "exports/model/model.safetensors").read_bytes()


OF_THE_CLOCK = ("time", "tokensPerSecond", "imagesPerSecond", "dataWait", "mfu")


def metric_lines(run_directory: Path) -> list[dict[str, float]]:
    """Return the lines of metrics.jsonl without values that depend on the clock."""
    lines = (run_directory / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in OF_THE_CLOCK} for line in lines]


def event_lines(run_directory: Path) -> list[tuple[int, str, float]]:
    """Return what TensorBoard's reader finds in all files, without values that depend on the clock."""
    return [
        (event.step, value.tag, tensor_util.make_ndarray(value.tensor).item())
        for path in sorted((run_directory / "tensorboard").iterdir())
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
        if value.tag not in OF_THE_CLOCK
    ]


class Killed(BaseException):
    """Ends an attempt like a kill: the trainer does not catch it."""


def play(fault: str) -> None:
    """Make the trainer of this process train the toy task and inject a fault.

    Args:
        fault: `<kill|term|pod>:<method of the task or of Files>:<number of the call>`; `pod` kills the launcher and
            its processes. `wait:<method>:<file>` creates a file and waits until it is removed. Empty: no fault.
    """
    hooks: dict[str, Callable[[int], None]] = {}
    if fault:
        how, where, number = fault.split(":")

        def on_call(call: int) -> None:
            if how == "wait":
                Path(number).touch()
                while Path(number).exists():
                    time.sleep(0.05)
            elif call == int(number):
                victim = int(os.environ[LAUNCHER_ENV]) if how == "pod" else os.getpid()
                os.kill(victim, signal.SIGTERM if how == "term" else signal.SIGKILL)
                if how == "pod":
                    signal.pause()

        hooks[where] = on_call
        if hasattr(Files, where):
            count_calls(where, on_call)
    replace_llm(lambda: ToyTask(hooks=hooks))


def count_calls(name: str, on_call: Callable[[int], None]) -> None:
    """Call `on_call` with the number of each call of a method of Files, before it runs."""
    original, calls = getattr(Files, name), []

    def counted(*args: object) -> object:
        calls.append(name)
        on_call(len(calls))
        return original(*args)

    setattr(Files, name, counted)
