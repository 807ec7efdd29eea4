"""Run configs and weights of runs in several processes."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from tests.unit.trainer import tiny
from trainyard_crds.runconfig import RunConfig

RELATIVE, ABSOLUTE = 2e-4, 2e-6
"""Tolerances of weights after 6 steps in fp32: sums of gradients in another order, and what AdamW makes of that."""


def config(tmp_path: Path, model: Path, name: str, method: str, processes: int, **blocks: Any) -> RunConfig:
    """8 micro-batches a step, whatever the number of processes."""
    dropout, precision = blocks.pop("dropout", 0.0), blocks.pop("precision", "fp32")
    data = tiny.write_rows(tmp_path / "rows.jsonl", tiny.questions(50))
    optimization = {"precision": precision, "learningRate": 0.005, "maxSteps": 6, "loggingSteps": 1}
    optimization |= {"gradientAccumulation": 8 // processes, "weightDecay": 0.01}
    return RunConfig.model_validate(
        {
            "runDirectory": str(tmp_path / name),
            "task": "llm",
            "method": method,
            "model": {"source": f"file://{model}"},
            "dataset": {"source": f"file://{data}", "validation": {"fraction": 0.3}},
            "optimization": optimization,
            "adapter": None if method == "full" else {"rank": 4, "dropout": dropout},
            "llm": {"maxLength": 64, "packing": False},
            "evaluation": {"everySteps": 2, "baseline": True},
            "checkpoints": {"everySteps": 2},
            "processes": processes,
            **blocks,
        }
    )


def weights(run: RunConfig) -> dict[str, Tensor]:
    last = json.loads(Path(run.run_directory, "checkpoints/index.json").read_text())["last"]
    (path,) = Path(run.run_directory, "checkpoints", last, "weights").glob("*.safetensors")
    return load_file(path)
