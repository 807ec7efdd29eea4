"""Run configs and models for memory estimates."""

from pathlib import Path
from typing import Any

import torch

from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.memory.recompute import Recompute
from trainyard_trainer.tasks.text.memory.shape import ModelShape
from trainyard_trainer.tasks.text.models.adapter import add_adapter
from trainyard_trainer.tasks.text.models.loading import load_base_model
from trainyard_trainer.tasks.text.models.recompute import recompute_activations
from trainyard_trainer.tasks.text.packing_isolation import enable_boundary_attention

BF16 = {"optimization": {"precision": "bf16"}}


VOCABULARY, BATCH, LENGTH, LAYERS = 4000, 2, 96, 4


def run(method: str, **blocks: dict[str, Any]) -> RunConfig:
    document: dict[str, Any] = {
        "runDirectory": "/run",
        "task": "llm",
        "method": method,
        "model": {"source": "file:///model"},
        "dataset": {"source": "file:///rows"},
        "optimization": {"precision": "fp32", "batchSize": BATCH, "gradientAccumulation": 2},
        "llm": {"maxLength": LENGTH},
    }
    return RunConfig.model_validate(
        {
            name: {**document.get(name, {}), **blocks.get(name, {})} if name in blocks else value
            for name, value in {**document, **{name: {} for name in blocks if name not in document}}.items()
        }
    )


def load(directory: Path, config: RunConfig, recompute: Recompute) -> Any:
    """The model as a run on the CPU has it."""
    precision, cpu = config.optimization.precision, torch.device("cpu")
    quantization = config.quantization
    model = load_base_model(directory, "nine", precision=precision, device=cpu, quantization=quantization)
    if config.adapter is not None:
        model = add_adapter(model, config.adapter, seed=0, base="nine", revision=None)
    recompute_activations(model, recompute)
    model.train()
    enable_boundary_attention(model, VOCABULARY, cpu)
    return model


def llama_8b() -> ModelShape:
    """Llama-3.1-8B by its published numbers."""
    layer = {"q_proj": (4096, 4096), "k_proj": (1024, 4096), "v_proj": (1024, 4096), "o_proj": (4096, 4096)}
    layer |= {"gate_proj": (14336, 4096), "up_proj": (14336, 4096), "down_proj": (4096, 14336)}
    tensors: dict[str, tuple[int, ...]] = {
        f"layers.{number}.{name}.weight": shape for number in range(32) for name, shape in layer.items()
    }
    tensors |= {"embed_tokens.weight": (128256, 4096), "lm_head.weight": (128256, 4096)}
    return ModelShape(
        hidden=4096,
        intermediate=14336,
        layers=32,
        queries=4096,
        keys=1024,
        vocabulary=128256,
        gated=True,
        normed_heads=False,
        tensors=tensors,
    )
