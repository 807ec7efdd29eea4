"""Training has the losses of a plain loop over upstream calls, step for step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from tests.unit.trainer import tiny
from tests.unit.trainer.definitions import replace_llm
from tests.unit.trainer.toy import metric_lines
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer import bootstrap
from trainyard_trainer.engine.task import Loaded, MicroBatch
from trainyard_trainer.stop import StopFlag
from trainyard_trainer.tasks.llm.task import LlmTask
from trainyard_trainer.tasks.text.batches import TextBatch

PAD, SEED, RATE, ACCUMULATION, STEPS = 2, 42, 0.01, 3, 12
TOLERANCE = 1e-4
"""Relative, fp32: the sums are taken in another order, and a step's rounding goes on into the next: in full training at
this learning rate, the last bit of a gradient has become 3e-5 of the loss after ten steps."""


class RecordedTask(LlmTask):
    """Remembers the rows of every micro-batch, in order."""

    def __init__(self) -> None:
        self.rows: list[list[tuple[int, ...]]] = []

    def loss(self, loaded: Loaded, batch: MicroBatch) -> torch.Tensor:
        assert isinstance(batch, TextBatch)
        self.rows.append(
            [row for line in zip(batch.input_ids, batch.position_ids, strict=True) for row in _split(*line)]
        )
        return super().loss(loaded, batch)


def _split(tokens: torch.Tensor, positions: torch.Tensor) -> list[tuple[int, ...]]:
    """The rows of one sequence without their padding."""
    starts = [index for index, position in enumerate(positions.tolist()) if position == 0]
    parts = [tokens[start:end].tolist() for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True)]
    rows = [tuple(token for token in part if token != PAD) for part in parts]
    return [row for row in rows if row]


def config(tmp_path: Path, model: Path, method: str, packing: bool) -> RunConfig:
    data = tiny.write_rows(tmp_path / "rows.jsonl", tiny.questions(40))
    return RunConfig.model_validate(
        {
            "runDirectory": str(tmp_path / "run"),
            "task": "llm",
            "method": method,
            "model": {"source": f"file://{model}"},
            "dataset": {"source": f"file://{data}"},
            "optimization": {
                "precision": "fp32",
                "learningRate": RATE,
                "warmupRatio": 0,
                "weightDecay": 0.02,
                "maxSteps": STEPS,
                "batchSize": 2,
                "gradientAccumulation": ACCUMULATION,
                "loggingSteps": 1,
                "seed": SEED,
            },
            "adapter": None if method == "full" else {"rank": 4, "alpha": 8},
            "llm": {"maxLength": 64, "packing": packing},
        }
    )


def plain_loop(
    directory: Path, method: str, rows: list[dict[str, Any]], steps: list[list[tuple[int, ...]]]
) -> list[tuple[float, float]]:
    """(loss, gradient norm) of every step; each row goes through the model alone."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
    encoded = [tokenizer.apply_chat_template(row["messages"], **options) for row in rows]
    answers = {tuple(one["input_ids"]): one["assistant_masks"] for one in encoded}
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    quantized = {"quantization_config": nf4} if method == "qlora" else {}
    model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, **quantized)
    if method != "full":
        torch.manual_seed(SEED)
        model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    model.train()
    decay = [{"params": [p for p in model.parameters() if p.requires_grad and p.ndim > 1], "weight_decay": 0.02}]
    plain = [{"params": [p for p in model.parameters() if p.requires_grad and p.ndim == 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(decay + (plain if method == "full" else []), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=len(steps))
    curve = []
    for step in steps:
        total = torch.zeros(())
        for row in step:
            logits = model(input_ids=torch.tensor([row])).logits[0, :-1]
            carries = torch.tensor(answers[row][1:], dtype=torch.bool)
            total = total + cross_entropy(logits[carries], torch.tensor(row[1:])[carries], reduction="sum")
        loss = total / sum(sum(answers[row][1:]) for row in step)
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        curve.append((loss.item(), norm.item()))
    return curve


@pytest.mark.parametrize("packing", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_losses_and_gradient_norms_equal_plain_loop(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, method: str, packing: bool
) -> None:
    run, task = config(tmp_path, tiny_model, method, packing), RecordedTask()
    replace_llm(lambda: task, monkeypatch)
    assert bootstrap.train(run, stop=StopFlag(), environ={}).exit_code == 0
    lines = [line for line in metric_lines(Path(run.run_directory)) if "loss" in line]
    ours = [(line["loss"], line["gradNorm"]) for line in lines]
    steps = in_steps(task.rows, 40)
    theirs = plain_loop(tiny_model, method, tiny.questions(40), steps)
    assert len(ours) == STEPS
    assert ours[-1][0] < 0.8 * ours[0][0]
    assert [loss for loss, _ in ours] == pytest.approx([loss for loss, _ in theirs], rel=TOLERANCE)
    assert [norm for _, norm in ours] == pytest.approx([norm for _, norm in theirs], rel=50 * TOLERANCE)


def in_steps(micro_batches: list[list[tuple[int, ...]]], rows_per_epoch: int) -> list[list[tuple[int, ...]]]:
    """The rows of each step: `ACCUMULATION` micro-batches, fewer where a pass over the rows ends."""
    steps: list[list[tuple[int, ...]]] = []
    step: list[tuple[int, ...]] = []
    seen = count = 0
    for rows in micro_batches:
        step, seen, count = [*step, *rows], seen + len(rows), count + 1
        if count == ACCUMULATION or seen == rows_per_epoch:
            steps.append(step)
            step, count = [], 0
            seen %= rows_per_epoch
    return steps
