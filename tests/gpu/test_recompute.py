"""Recomputing on a real GPU: the same gradients, and the predicted peak near the allocator's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from tests.unit.trainer.tasks.text.memory.batches import full_batch
from tests.unit.trainer.tasks.text.memory.configs import BF16, run
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.engine.optimizer import create_optimizer
from trainyard_trainer.engine.task import ParameterGroup
from trainyard_trainer.memory.recompute import Mode, Recompute, recompute_of
from trainyard_trainer.tasks.text.loss import find_chunk_rows, summed_loss
from trainyard_trainer.tasks.text.memory.estimate import context_bytes, estimate
from trainyard_trainer.tasks.text.memory.shape import read_shape
from trainyard_trainer.tasks.text.models.adapter import add_adapter
from trainyard_trainer.tasks.text.models.loading import load_base_model
from trainyard_trainer.tasks.text.models.recompute import recompute_activations
from trainyard_trainer.tasks.text.packing_isolation import enable_boundary_attention

LAYERS, VOCABULARY, LENGTH = 8, 32000, 2048
GPU = torch.device("cuda", 0)
MODES: tuple[Mode, ...] = ("none", "selective", "full", "offload")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 400 million random parameters."""
    path = tmp_path_factory.mktemp("model")
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=LAYERS,
        num_attention_heads=16,
        num_key_value_heads=4,
    )
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(path)
    return path


def configured(method: str) -> RunConfig:
    return run(method, **BF16, llm={"maxLength": LENGTH}).model_copy(update={"gpus": 1})


def load(directory: Path, config: RunConfig, way: Recompute) -> Any:
    model = load_base_model(directory, "it", precision="bf16", device=GPU, quantization=config.quantization)
    if config.adapter is not None:
        model = add_adapter(model, config.adapter, seed=0, base="it", revision=None)
    recompute_activations(model, way)
    model.train()
    enable_boundary_attention(model, VOCABULARY, GPU)
    return model


def gradients(directory: Path, way: Recompute) -> dict[str, Tensor]:
    model = load(directory, configured("lora"), way)
    batch = full_batch(2, LENGTH).to(GPU)
    for _ in range(2):
        torch.autograd.backward(summed_loss(model, batch, find_chunk_rows(model, GPU)) / 4096)
    return {name: weight.grad.cpu() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("mode", MODES[1:])
def test_gradients_equal_plain_pass(directory: Path, mode: Mode) -> None:
    plain, found = (gradients(directory, recompute_of(way, LAYERS)) for way in ("none", mode))
    assert plain.keys() == found.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", ["qlora", "lora", "full"])
def test_predicted_peak_is_within_a_tenth_of_allocator(directory: Path, method: str, mode: Mode) -> None:
    config, way = configured(method), recompute_of(mode, LAYERS)
    model, batch = load(directory, config, way), full_batch(2, LENGTH).to(GPU)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    group = ParameterGroup(name="all", parameters=trained, learning_rate=1e-4, weight_decay=0.0)
    optimizer, rows = create_optimizer([group], "adamw"), find_chunk_rows(model, GPU)
    for micro_steps in (1, 2):
        torch.cuda.reset_peak_memory_stats(GPU)
        for _ in range(micro_steps):
            torch.autograd.backward(summed_loss(model, batch, rows))
        optimizer.step()
        optimizer.zero_grad()
    predicted = estimate(config, read_shape(directory, "it"), way).peak - context_bytes(config)
    assert predicted == pytest.approx(torch.cuda.max_memory_allocated(GPU), rel=0.1)
