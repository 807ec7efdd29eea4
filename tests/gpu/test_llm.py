"""The llm task on a real GPU: it learns, resumes exactly, and reports what NVML sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer import tiny
from tests.unit.trainer.tasks.llm.runs import train
from tests.unit.trainer.toy import metric_lines
from trainyard_crds.report import Outcome
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.engine.device import gpu_uuids
from trainyard_trainer.report.gpu import create_gpu_sampler


def config(tmp_path: Path, model: Path, name: str, method: str, precision: str) -> RunConfig:
    data = tiny.write_rows(tmp_path / "rows.jsonl", tiny.questions(40))
    document: dict[str, Any] = {
        "runDirectory": str(tmp_path / name),
        "task": "llm",
        "method": method,
        "model": {"source": f"file://{model}"},
        "dataset": {"source": f"file://{data}", "validation": {"fraction": 0.2}},
        "optimization": {"precision": precision, "learningRate": 0.005, "maxSteps": 20, "gradientAccumulation": 2},
        "llm": {"maxLength": 64},
        "evaluation": {"baseline": True},
        "gpus": 1,
    }
    return RunConfig.model_validate(document)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_held_out_loss_falls(tmp_path: Path, tiny_model: Path, method: str, precision: str) -> None:
    run = config(tmp_path, tiny_model, "run", method, precision)
    result = train(run)
    assert result.outcome is Outcome.FINISHED
    assert result.metrics["evalLoss"] < 0.9 * result.metrics["baselineEvalLoss"]


def test_interrupted_run_resumes_with_same_losses(tmp_path: Path, tiny_model: Path) -> None:
    whole = config(tmp_path, tiny_model, "whole", "lora", "fp32")
    resumed = config(tmp_path, tiny_model, "resumed", "lora", "fp32")
    assert train(whole).outcome is Outcome.FINISHED
    assert train(resumed, interrupted_at=9).outcome is Outcome.INTERRUPTED
    assert train(resumed).outcome is Outcome.FINISHED
    losses = [
        [line["loss"] for line in metric_lines(Path(r.run_directory)) if "loss" in line] for r in (whole, resumed)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_nvml_reports_the_gpu_in_use() -> None:
    (gpu,) = create_gpu_sampler(gpu_uuids(gpus=1))()
    assert 0 < gpu.memory_used <= gpu.memory_total
