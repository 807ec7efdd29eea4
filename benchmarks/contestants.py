"""One contestant as a process: `python -m benchmarks.contestants TASK RESULT`, started by `benchmarks.comparison`.

Ours is the trainer itself, with a task that also notes when each micro-batch begins. The peer is what its documentation
shows: a model, `get_peft_model`, a collator that pads, `Trainer`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.comparison import Case, Result, Side
from benchmarks.process import usage
from benchmarks.workload import read_rows
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer import bootstrap
from trainyard_trainer.engine.async_checkpointer import AsyncCheckpointer
from trainyard_trainer.engine.task import Loaded, MicroBatch, RunContext
from trainyard_trainer.memory.devices import peak_flops
from trainyard_trainer.stop import StopFlag
from trainyard_trainer.tasks.llm.definition import LLM
from trainyard_trainer.tasks.llm.task import LlmLoaded, LlmTask
from trainyard_trainer.tasks.registry import TASKS
from trainyard_trainer.tasks.text.batches import TextBatch
from trainyard_trainer.tasks.text.memory.estimate import context_bytes, flops_per_token
from trainyard_trainer.tasks.text.memory.shape import read_shape
from trainyard_trainer.tasks.text.models.libraries import import_bitsandbytes
from trainyard_trainer.tasks.text.models.library_logging import quiet_libraries

SEED, RANK = 42, 16
RATES = {"lora": 5e-3, "qlora": 5e-3, "full": 5e-4}


def main() -> None:
    document = json.loads(Path(sys.argv[1]).read_text())
    side, case = Side(**document["side"]), Case(**document["case"])
    if not case.gpus:
        torch.set_num_threads(case.threads)
    with _emulated(case):
        result, model = ours(case, Path(sys.argv[2]).parent) if side.ours else peer(side, case)
    result.peak_rss = usage(os.getpid()).peak
    _add_device(result, case)
    result.loss = held_out_loss(model, case)
    Path(sys.argv[2]).write_text(json.dumps(asdict(result)))


# --- ours -------------------------------------------------------------------------------------------------------------


class ObservedTask(LlmTask):
    """Records every micro-batch, and keeps the loaded task."""

    def __init__(self, result: Result, live: Any) -> None:
        self._result = result
        self._live = live
        self.loaded: LlmLoaded | None = None

    def load(self, context: RunContext) -> LlmLoaded:
        self.loaded = super().load(context)
        warm_up(self.loaded.model)
        self._result.packing = context.metrics["packingEfficiency"]
        if self._live is not None:
            for tensor in (*self.loaded.model.parameters(), *self.loaded.model.buffers()):
                self._live.hold(tensor)
        return self.loaded

    def loss(self, loaded: Loaded, batch: MicroBatch) -> Tensor:
        assert isinstance(batch, TextBatch)
        self._result.cpu.append(time.process_time())
        self._result.batches.append((time.time(), batch.num_tokens, batch.input_ids.numel()))
        if self._live is not None and len(self._result.batches) == 2:
            self._live.peak = self._live.now  # not what loading held
        return super().loss(loaded, batch)


def ours(case: Case, folder: Path) -> tuple[Result, Any]:
    """Train like a pod; returns the measurements and the model.

    Raises:
        SystemExit: It did not finish; with the trainer's sentence.
    """
    result, config = Result(), _run_config(case, folder / "run")
    with ExitStack() as stack:
        live = stack.enter_context(_live_bytes()) if case.watched else None
        task = ObservedTask(result, live)
        stack.enter_context(patch.dict(TASKS, {"llm": replace(LLM, create=lambda: task)}))
        stack.enter_context(patch.object(AsyncCheckpointer, "save", _observed(AsyncCheckpointer.save, result, live)))
        termination = bootstrap.train(config, stop=StopFlag(), environ={})
    if termination.exit_code != 0 or task.loaded is None:
        sys.exit(f"{termination.reason}: {termination.message}")
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    result.logged = [datetime.fromisoformat(line["time"]).timestamp() for line in lines if "loss" in line]
    result.data_wait = [line["dataWait"] for line in lines if "loss" in line]
    if (found := termination.memory_estimate) is not None:
        result.predicted = found.bytes - context_bytes(config)
        result.recompute = found.basis.rpartition("recompute ")[2]
    return result, task.loaded.model


def _run_config(case: Case, directory: Path) -> RunConfig:
    return RunConfig.model_validate(
        {
            "runDirectory": str(directory),
            "task": "llm",
            "method": case.method,
            "model": {"source": f"file://{case.model}"},
            "dataset": {"source": f"file://{case.rows}"},
            "optimization": {
                "precision": case.precision,
                "learningRate": RATES[case.method],
                "warmupRatio": 0,
                "maxSteps": case.max_steps,
                "batchSize": case.sequences,
                "gradientAccumulation": case.accumulation,
                "loggingSteps": 1,
                "recompute": case.recompute,
                "seed": SEED,
            },
            "adapter": None if case.method == "full" else {"rank": RANK, "alpha": RANK, "dropout": 0},
            "llm": {"maxLength": case.max_length, "packing": True},
            "checkpoints": {"everySteps": case.save_every, "keep": 1},
            "gpus": case.gpus,
        }
    )


def _live_bytes() -> Any:
    from tests.unit.trainer.tasks.text.memory.live import LiveBytes

    return LiveBytes()


def _observed(save: Callable[..., None], result: Result, live: Any) -> Callable[..., None]:
    """Return `save` with its time noted, and before the first one the peak of the steps.

    The memory plan counts the copy of a checkpoint beside the peak (`checkpoint_copy`).
    """

    def observed(*arguments: Any, **options: Any) -> None:
        if live is not None and not result.saves:
            result.measured = live.peak
        began = time.monotonic()
        save(*arguments, **options)
        result.saves.append(time.monotonic() - began)

    return observed


# --- the peer ---------------------------------------------------------------------------------------------------------


def peer(side: Side, case: Case) -> tuple[Result, Any]:
    """Train with `transformers.Trainer`; returns the measurements and the model."""
    quiet_libraries()
    from transformers import Trainer, TrainerCallback, TrainingArguments

    result, noted = Result(recompute="full" if side.recompute else "none"), []

    class Observed(TrainerCallback):  # type: ignore[misc,unused-ignore]
        def on_log(self, *_arguments: Any, logs: dict[str, float], **_options: Any) -> None:
            if "loss" in logs:
                result.logged.append(time.time())

    class Counting(Trainer):  # type: ignore[misc,unused-ignore]
        def training_step(self, model: Any, inputs: Any, *arguments: Any) -> Any:
            mask = inputs["attention_mask"]
            result.cpu.append(time.process_time())
            noted.append((time.time(), mask.sum(), mask.numel()))  # read at the end: now, a GPU would be waited for
            return super().training_step(model, inputs, *arguments)

    model = _peer_model(side, case)
    warm_up(model)
    arguments = TrainingArguments(
        output_dir=str(Path(sys.argv[2]).parent / "run"),
        max_steps=case.max_steps,
        per_device_train_batch_size=case.rows_per_batch,
        gradient_accumulation_steps=case.accumulation,
        learning_rate=RATES[case.method],
        lr_scheduler_type="cosine",
        optim="adamw_torch_fused",
        train_sampling_strategy="group_by_length" if side.grouped else "random",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=case.gpus == 0,
        bf16=case.precision == "bf16",
        gradient_checkpointing=side.recompute,
        gradient_checkpointing_kwargs={"use_reentrant": False} if side.recompute else None,
        seed=SEED,
    )
    trainer = Counting(
        model=model,
        args=arguments,
        train_dataset=read_rows(Path(case.rows)),
        data_collator=_padded,
        callbacks=[Observed()],
    )
    trainer.train()
    result.batches = [(began, int(real), computed) for began, real, computed in noted]
    return result, model


def _peer_model(side: Side, case: Case) -> Any:
    import_bitsandbytes()
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[case.precision]
    options: dict[str, Any] = {"device_map": {"": 0}} if case.gpus else {}
    if case.method == "qlora":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    model = AutoModelForCausalLM.from_pretrained(case.model, dtype=dtype, **options)
    if case.method == "qlora":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=side.recompute)
    elif side.recompute:
        model.enable_input_require_grads()
    if case.method == "full":
        return model
    torch.manual_seed(SEED)
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, config)


def _padded(rows: list[dict[str, list[int]]]) -> dict[str, Tensor]:
    width = max(len(row["input_ids"]) for row in rows)

    def lines(value: int, given: list[list[int]]) -> Tensor:
        return torch.tensor([row + [value] * (width - len(row)) for row in given])

    return {
        "input_ids": lines(0, [row["input_ids"] for row in rows]),
        "labels": lines(-100, [row["labels"] for row in rows]),
        "attention_mask": lines(0, [[1] * len(row["input_ids"]) for row in rows]),
    }


# --- both -------------------------------------------------------------------------------------------------------------


@contextmanager
def _emulated(case: Case) -> Iterator[None]:
    """Emulate a GPU of the case's size: torch can allocate no more, and reads that size."""
    if case.cap is None:
        yield
        return
    cap, total = case.cap, torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(cap / total)

    def mem_get_info(_device: Any = None) -> tuple[int, int]:
        return max(0, cap - torch.cuda.memory_reserved(0)), cap

    with patch.object(torch.cuda, "mem_get_info", mem_get_info):
        yield


def warm_up(model: Any) -> None:
    """Warm up: run what happens once in a process, such as imports of the optimizer; changes no weights."""
    model.train()
    tokens = torch.zeros((1, 8), dtype=torch.int64, device=next(model.parameters()).device)
    torch.autograd.backward(model(input_ids=tokens, labels=tokens, use_cache=False).loss)
    model.zero_grad(set_to_none=True)
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    torch.optim.AdamW([weight], fused=True).step()


def _add_device(result: Result, case: Case) -> None:
    if not case.gpus:
        return
    result.measured = torch.cuda.max_memory_allocated(0)
    result.reserved = torch.cuda.max_memory_reserved(0)
    result.peak_flops = peak_flops(torch.cuda.get_device_name(0))
    config = _run_config(case, Path("unused"))
    result.flops_per_token = flops_per_token(config, read_shape(Path(case.model), "it"))


def held_out_loss(model: Any, case: Case) -> float:
    """Return nats per token by plain calls in training mode: equal without dropout, and keeps 4-bit weights."""
    device, total, count = next(model.parameters()).device, 0.0, 0
    with torch.no_grad():
        for row in read_rows(Path(case.held_out)):
            tokens = torch.tensor([row["input_ids"]], device=device)
            logits = model(input_ids=tokens, use_cache=False).logits[0, :-1].float()
            total += functional.cross_entropy(logits, tokens[0, 1:], reduction="sum").item()
            count += tokens.shape[1] - 1
    return total / count


if __name__ == "__main__":
    main()
