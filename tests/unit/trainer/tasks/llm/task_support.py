"""Load and train a language-model task without the engine."""

from pathlib import Path
from typing import Any

import torch

from tests.unit.trainer import tiny
from tests.unit.trainer.resolved import ResolvedMemory
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.engine.task import RunContext
from trainyard_trainer.stop import StopFlag
from trainyard_trainer.tasks.llm.task import LlmLoaded, LlmTask


def run_context(tmp_path: Path, directory: Path, *, rows: int = 24, **changes: object) -> RunContext:
    data = tiny.write_rows(tmp_path / "rows.jsonl", tiny.questions(rows))
    document: dict[str, Any] = {
        "runDirectory": str(tmp_path / "run"),
        "task": "llm",
        "method": "lora",
        "model": {"source": f"file://{directory}"},
        "dataset": {"source": f"file://{data}", "validation": {"fraction": 0.25}},
        "optimization": {"precision": "fp32", "learningRate": 0.01, "batchSize": 2},
        "llm": {"maxLength": 128},
        **changes,
    }
    if document["method"] != "full":
        document.setdefault("adapter", {"rank": 8, "alpha": 16})
    return RunContext(
        config=RunConfig.model_validate(document),
        run_directory=tmp_path / "run",
        device=torch.device("cpu"),
        stop=StopFlag(),
        resolved=ResolvedMemory(),
        stage=lambda _stage: None,
        log=lambda _kind, _sentence: None,
    )


def train(task: LlmTask, loaded: LlmLoaded, steps: int) -> list[float]:
    groups = [{"params": list(group.parameters), "lr": group.learning_rate} for group in loaded.parameter_groups]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    losses, epoch, index = [], 0, 0
    for _ in range(steps):
        if index == loaded.train.num_micro_batches(epoch):
            epoch, index = epoch + 1, 0
        batch = loaded.train.micro_batch(epoch, index)
        loss = task.loss(loaded, batch) / batch.loss_weight
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        index += 1
    return losses


def logits(model: torch.nn.Module) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        result: torch.Tensor = model(input_ids=torch.arange(40).reshape(2, 20), use_cache=False).logits
    return result
