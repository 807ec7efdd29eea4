"""A task with images: a tiny convolutional network classifies squares and crosses.

It trains through the engine without a line of the engine naming it. Users cannot choose it: only this run config, a
subclass, has its name, and only a test's patch puts its definition into the registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from trainyard_crds.common import SpecModel
from trainyard_crds.exports import Export
from trainyard_crds.report import Stage
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.engine.definition import TaskDefinition
from trainyard_trainer.engine.task import ExportNotes, Loaded, MicroBatch, ParameterGroup, RunContext
from trainyard_trainer.tasks.registry import TASKS

SIZE = 8
WEIGHTS = "model.safetensors"


class ImagesSettings(SpecModel):
    """The task's own block of the run config."""

    channels: int = Field(default=4, ge=1)


class ImagesConfig(RunConfig):
    """A run config that may name the task of this module."""

    task: Literal["images"]  # type: ignore[assignment] # a user's run config knows the real tasks only
    images: ImagesSettings = ImagesSettings()


def draw(shape: int, generator: torch.Generator) -> Tensor:
    """Draw a square (0) or a cross (1) at a random place, with noise."""
    image = torch.zeros(SIZE, SIZE)
    top, left = (int(torch.randint(0, SIZE - 4, (), generator=generator)) for _ in range(2))
    if shape == 0:
        image[top : top + 4, left : left + 4] = 1.0
        image[top + 1 : top + 3, left + 1 : left + 3] = 0.0
    else:
        image[top : top + 4, left + 1] = 1.0
        image[top + 1, left : left + 4] = 1.0
    return image + 0.1 * torch.randn(SIZE, SIZE, generator=generator)


@dataclass(frozen=True)
class ImageBatch:
    """A few images with their classes."""

    images: Tensor
    labels: Tensor

    @property
    def loss_weight(self) -> float:
        """Half an image counts: a weight need not be a whole number."""
        return 0.5 * len(self.labels)

    @property
    def num_items(self) -> int:
        return len(self.labels)


class ImageData:
    """Drawn shapes, the same for the same seed."""

    fingerprint = "1" * 64

    def __init__(self, num_batches: int, seed: int, batch_size: int = 8) -> None:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, 2, (num_batches, batch_size), generator=generator)
        self._batches = [
            ImageBatch(torch.stack([draw(int(label), generator) for label in row]).unsqueeze(1), row) for row in labels
        ]

    def num_micro_batches(self, epoch: int) -> int:
        return len(self._batches)

    def micro_batch(self, epoch: int, index: int) -> ImageBatch:
        return self._batches[(index + epoch) % len(self._batches)]

    def origins(self, epoch: int, index: int) -> list[tuple[str, int]]:
        return [("drawn", (index + epoch) % len(self._batches) + 1)]


class ImagesTask:
    """Implements `engine.task.Task`."""

    def __init__(self) -> None:
        self._held_out = ImageData(num_batches=4, seed=2)

    def load(self, context: RunContext) -> Loaded:
        config = context.config
        assert isinstance(config, ImagesConfig)
        context.stop.check()
        context.stage(Stage.LOADING_MODEL)
        channels = config.images.channels
        model = nn.Sequential(
            nn.Conv2d(1, channels, 3),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Flatten(),
            nn.Linear(channels * (SIZE - 2) ** 2, 2),
        ).to(context.device)
        group = ParameterGroup(
            name="network",
            parameters=list(model.parameters()),
            learning_rate=config.optimization.learning_rate,
            weight_decay=config.optimization.weight_decay,
        )
        return Loaded(
            model=model,
            train=ImageData(num_batches=8, seed=1),
            has_evaluation=True,
            parameter_groups=[group],
            model_source="drawn://shapes",
            model_revision=None,
            unit="images",
        )

    def loss(self, loaded: Loaded, batch: MicroBatch) -> Tensor:
        assert isinstance(batch, ImageBatch)
        return functional.cross_entropy(loaded.model(batch.images), batch.labels, reduction="sum") * 0.5

    def evaluate(self, loaded: Loaded, context: RunContext) -> dict[str, float]:
        loaded.model.eval()
        poll, batches = context.stop.check, range(self._held_out.num_micro_batches(0))

        def loss(index: int) -> tuple[float, float]:
            batch = self._held_out.micro_batch(0, index)
            return float(self.loss(loaded, batch)), batch.loss_weight

        def hits(index: int) -> tuple[float, float]:
            batch = self._held_out.micro_batch(0, index)
            return float((loaded.model(batch.images).argmax(-1) == batch.labels).sum()), batch.num_items

        with torch.no_grad():
            return {
                "evalLoss": context.group.weighted_mean(batches, loss, poll),
                "accuracy": context.group.weighted_mean(batches, hits, poll),
            }

    def weights(self, loaded: Loaded) -> Mapping[str, Tensor]:
        return loaded.model.state_dict()

    def save_weights(self, loaded: Loaded, weights: Mapping[str, Tensor], directory: Path) -> None:
        save_file(dict(weights), directory / WEIGHTS)

    def load_weights(self, loaded: Loaded, directory: Path) -> None:
        loaded.model.load_state_dict(load_file(directory / WEIGHTS))

    def export(
        self, loaded: Loaded, context: RunContext, request: Export, weights: Path, directory: Path
    ) -> ExportNotes:
        return self.export_saved(context, request, weights, directory)

    def export_saved(self, context: RunContext, request: Export, weights: Path, directory: Path) -> ExportNotes:
        context.stop.check()
        save_file(load_file(weights / WEIGHTS), directory / WEIGHTS)
        return ExportNotes(message="Copied the network.", facts={"size": SIZE})


IMAGES = TaskDefinition(
    name="images",
    settings=("images",),
    metrics={"evalLoss": "minimize", "accuracy": "maximize"},
    objective="accuracy",
    exports=("model",),
    memory_advice="Lower images.channels.",
    create=ImagesTask,
    plan=lambda config, _environ, _device: f"{config.task}: a few kilobytes",
)


def register(patch: pytest.MonkeyPatch) -> None:
    """Put the task into the registry for as long as the patch lasts."""
    patch.setitem(TASKS, IMAGES.name, IMAGES)


def images_config(run_directory: Path, **blocks: Any) -> ImagesConfig:
    """16 steps of 2 micro-batches over 4 passes, saved and evaluated every 4 steps."""
    document: dict[str, Any] = {
        "runDirectory": str(run_directory),
        "task": "images",
        "method": "full",
        "model": {"source": "file:///drawn"},
        "dataset": {"source": "file:///drawn", "validation": {"fraction": 0.1}},
        "optimization": {"learningRate": 0.02, "epochs": 4, "gradientAccumulation": 2, "loggingSteps": 2},
        "checkpoints": {"everySteps": 4},
    }
    for name, values in blocks.items():
        document[name] = {**document.get(name, {}), **values} if isinstance(values, dict) else values
    return ImagesConfig.model_validate(document)
