"""A tiny model trained for a few steps, and its exports."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.unit.trainer import tiny
from tests.unit.trainer.tasks.llm.task_support import run_context, train
from trainyard_crds.exports import Export
from trainyard_trainer.engine.task import ExportNotes, RunContext
from trainyard_trainer.tasks.llm.task import LlmLoaded, LlmTask


@dataclass(frozen=True)
class Trained:
    """A task after three steps, its weights saved."""

    task: LlmTask
    loaded: LlmLoaded
    context: RunContext
    weights: Path

    def export(self, directory: Path, **request: Any) -> ExportNotes:
        directory.mkdir()
        return self.task.export(self.loaded, self.context, Export(**request), self.weights, directory)


def save_family(directory: Path, family: str, **config: Any) -> Path:
    """A tiny model of another architecture."""
    model = type(tiny.make_model(family))(
        type(tiny.make_config(family))(**{**tiny.make_config(family).to_dict(), **config})
    )
    model.save_pretrained(directory, max_shard_size="500KB")
    tiny.make_tokenizer().save_pretrained(directory)
    return directory


def trained(tmp_path: Path, model: Path, **changes: Any) -> Trained:
    context = run_context(tmp_path, model, **changes)
    task = LlmTask()
    loaded = task.load(context)
    train(task, loaded, 3)
    weights = tmp_path / "saved"
    weights.mkdir()
    task.save_weights(loaded, task.weights(loaded), weights)
    return Trained(task, loaded, context, weights)
