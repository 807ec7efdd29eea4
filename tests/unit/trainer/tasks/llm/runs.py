"""Runs of a tiny language model in the test process."""

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from tests.unit.trainer import tiny
from tests.unit.trainer.definitions import replace_llm
from trainyard_crds.report import Termination
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer import bootstrap
from trainyard_trainer.engine.task import Loaded, MicroBatch
from trainyard_trainer.stop import StopFlag
from trainyard_trainer.tasks.llm.task import LlmTask


def config(tmp_path: Path, model: Path, name: str, method: str, packing: bool = True, **blocks: Any) -> RunConfig:
    data = tiny.write_rows(tmp_path / "rows.jsonl", tiny.questions(40))
    return RunConfig.model_validate(
        {
            "runDirectory": str(tmp_path / name),
            "task": "llm",
            "method": method,
            "model": {"source": f"file://{model}"},
            "dataset": {"source": f"file://{data}", "validation": {"fraction": 0.2}},
            "optimization": {"precision": "fp32", "learningRate": 0.005, "epochs": 2, "gradientAccumulation": 3},
            "adapter": None if method == "full" else {"rank": 4, "dropout": 0.1},
            "llm": {"maxLength": 64, "packing": packing},
            "evaluation": {"everySteps": 2, "baseline": True},
            "checkpoints": {"everySteps": 3},
            **blocks,
        }
    )


class InterruptedTask(LlmTask):
    """Asks for a stop at one of its micro-batches (evaluation not counted)."""

    def __init__(self, stop: StopFlag, at: int) -> None:
        self._stop = stop
        self._left = at

    def loss(self, loaded: Loaded, batch: MicroBatch) -> Tensor:
        self._left -= 1
        if self._left == 0:
            self._stop.request()
        return super().loss(loaded, batch)


def train(run: RunConfig, interrupted_at: int | None = None) -> Termination:
    """One start of a run in this process."""
    stop = StopFlag()
    task = LlmTask() if interrupted_at is None else InterruptedTask(stop, interrupted_at)
    with pytest.MonkeyPatch.context() as patch:
        replace_llm(lambda: task, patch)
        return bootstrap.train(run, stop=stop, environ={})


def exported(run: RunConfig) -> dict[str, bytes]:
    (directory,) = Path(run.run_directory, "exports").iterdir()
    return {path.name: path.read_bytes() for path in directory.iterdir()}
