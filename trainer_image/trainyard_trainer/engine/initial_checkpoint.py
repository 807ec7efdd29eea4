"""The checkpoint of another run at which a run begins (resumeFrom)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trainyard_crds.runconfig import RunConfig, RunResume
from trainyard_trainer.checkpoint.manifest import Checkpoint
from trainyard_trainer.checkpoint.other_run import find_checkpoint, read_checkpoint
from trainyard_trainer.engine.resolved import RESOLVED_FILE, ResolvedFile
from trainyard_trainer.engine.resume_checks import first_difference
from trainyard_trainer.errors import ConfigurationError, DataError
from trainyard_trainer.group.group import Group
from trainyard_trainer.objective import Objective

_CHOSEN = "resumeFrom"
"""Key in resolved.json: the checkpoint that was chosen, since `last` of a run that still trains changes."""
MAY_CHANGE = ("epochs", "maxSteps", "learningRate", "scheduler", "warmupRatio", "maxGradNorm")
"""Settings of `optimization` that may differ with mode: continue."""
_WEIGHTS_BLOCKS = ("model", "method", "adapter", "quantization")
"""What must be the same with mode: weights, because the weights fit nothing else."""
_NO_EFFECT_ON_SHAPE = {"adapter.dropout"}
_MODEL_KEYS = ("commit:model:", "files:")
"""Keys of resolved.json that fix the base model."""


@dataclass(frozen=True, kw_only=True)
class InitialCheckpoint:
    """The checkpoint, and what is taken from it."""

    checkpoint: Checkpoint
    request: RunResume

    @property
    def weights_only(self) -> bool:
        """Whether training starts at step 0."""
        return self.request.mode == "weights"

    @property
    def name(self) -> str:
        """The checkpoint in messages."""
        return f"{self.checkpoint.name} of {self.request.display_name}"

    @property
    def taken(self) -> str:
        """What is taken from the checkpoint."""
        return "weights" if self.weights_only else "weights, optimizer state and position in the rows"

    def check_settings(self, settings: Mapping[str, str]) -> None:
        """Check that the settings fit the checkpoint.

        Raises:
            ConfigurationError: One of them does not.
        """
        fits = _fits_weights if self.weights_only else _fits_position
        before = self.checkpoint.manifest.config
        difference = first_difference(_selected(before, fits), _selected(settings, fits))
        if difference is None:
            return
        name, old, new = difference
        if self.weights_only:
            advice = f"Set it back: with resumeFrom.mode: weights, {', '.join(_WEIGHTS_BLOCKS)} stay as they were."
        else:
            advice = (
                f"Set it back: with resumeFrom only optimization.{', '.join(MAY_CHANGE)} may change. To start at step "
                "0 with the checkpoint's weights and other settings, set resumeFrom.mode: weights."
            )
        raise ConfigurationError(f"resumeFrom: {name} was {old} in the run of {self.name} and is {new} now.", advice)

    def check_rows(self, fingerprint: str) -> None:
        """Check that the training rows are those of the checkpoint.

        Raises:
            DataError: They differ.
        """
        before = self.checkpoint.manifest.data_fingerprint
        if before != fingerprint:
            raise DataError(
                f"resumeFrom: the training rows are not those of {self.name} (fingerprint {fingerprint[:12]}, was "
                f"{before[:12]}): rows, tokenizer or data settings changed.",
                "Use the same dataset, or set resumeFrom.mode: weights to start at step 0 of the new rows with the "
                "checkpoint's weights.",
            )

    def check_steps(self, total_steps: int) -> None:
        """Check that there are steps left.

        Raises:
            ConfigurationError: The run ends at or before the step of the checkpoint.
        """
        step = self.checkpoint.manifest.step
        if step >= total_steps:
            raise ConfigurationError(
                f"resumeFrom: {self.name} is at step {step}, and this run ends at step {total_steps}.",
                "Raise optimization.epochs or maxSteps, or set resumeFrom.mode: weights to start at step 0.",
            )


def find_initial(
    config: RunConfig, resolved: ResolvedFile, objective: Objective, group: Group
) -> InitialCheckpoint | None:
    """Return the checkpoint of another run that the config names, the same on every start; None without one.

    What that run resolved once (the commit of the model) holds for this run too.

    Raises:
        NotFoundError: the run has no such checkpoint.
    """
    request = config.resume_from
    if request is None:
        return None
    chosen = resolved.get(_CHOSEN)
    if group.is_main_process:
        wanted = request if chosen is None else request.model_copy(update={"checkpoint": chosen})
        chosen = find_checkpoint(wanted, objective).name
    chosen = str(group.broadcast(chosen))
    for key, value in _resolved_there(request).items():
        if resolved.get(key) is None:
            resolved.put(key, value)
    if resolved.get(_CHOSEN) is None:
        resolved.put(_CHOSEN, chosen)
    return InitialCheckpoint(checkpoint=read_checkpoint(request, chosen), request=request)


def _resolved_there(request: RunResume) -> dict[str, str]:
    path = Path(request.run_directory) / RESOLVED_FILE
    values: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if request.mode == "weights":
        return {key: value for key, value in values.items() if key.startswith(_MODEL_KEYS)}
    return {key: value for key, value in values.items() if key != _CHOSEN}


def _selected(settings: Mapping[str, str], fits: Callable[[str], bool]) -> dict[str, str]:
    return {name: value for name, value in settings.items() if fits(name)}


def _fits_position(name: str) -> bool:
    return name not in {f"optimization.{field}" for field in MAY_CHANGE}


def _fits_weights(name: str) -> bool:
    return name.partition(".")[0] in _WEIGHTS_BLOCKS and name not in _NO_EFFECT_ON_SHAPE
