"""A tiny random model with adapters, for the serving engine, and the answers that they must give.

The adapters differ so much from the base model that each answers otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast

from tests.unit.trainer.tiny import SMALL, make_model, save_tiny_model

ADAPTERS = ("red", "green", "blue")
"""Adapters of rank 8 with different weights."""
RANK, LARGE_RANK = 8, 32


@dataclass(frozen=True)
class Files:
    """Directories of a model and of adapters.

    Attributes:
        model: The base model: 2 layers of 128.
        adapters: Adapters of the base model, by ADAPTERS.
        large: An adapter of the base model of rank LARGE_RANK.
        narrower, wider: Adapters of models with 64 and 256 instead of 128.
    """

    model: Path
    adapters: Mapping[str, Path]
    large: Path
    narrower: Path
    wider: Path


def save_files(directory: Path) -> Files:
    """Save a model and adapters; they are the same each time."""
    return Files(
        model=save_tiny_model(directory / "model"),
        adapters={
            name: save_adapter(make_model(), directory / name, seed=seed) for seed, name in enumerate(ADAPTERS, 1)
        },
        large=save_adapter(make_model(), directory / "large", rank=LARGE_RANK),
        narrower=save_adapter(_sized(64), directory / "narrower"),
        wider=save_adapter(_sized(256), directory / "wider"),
    )


def save_adapter(model: PreTrainedModel, directory: Path, *, rank: int = RANK, seed: int = 1) -> Path:
    """Save a random adapter of a model; both of its matrices are filled, unlike before training."""
    settings = LoraConfig(r=rank, lora_alpha=4 * rank, target_modules="all-linear", init_lora_weights=False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        get_peft_model(model, settings).save_pretrained(str(directory))
    return directory


def reference(model: Path, adapter: Path | None, prompt: str, tokens: int) -> list[int]:
    """Return so many tokens of the greedy answer that transformers and PEFT compute, beyond its end token."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    if adapter is not None:
        loaded = PeftModel.from_pretrained(loaded, str(adapter)).eval()
    loaded.generation_config.eos_token_id = None
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        answer = loaded.generate(**inputs, do_sample=False, max_new_tokens=tokens)
    return [int(token) for token in answer[0, inputs["input_ids"].shape[1] :]]


def _sized(hidden: int) -> PreTrainedModel:
    settings = LlamaConfig(**SMALL | {"hidden_size": hidden, "intermediate_size": hidden})
    return AutoModelForCausalLM.from_config(settings)
