"""Tiny models whose output layer is tied to the embedding: Llama, and GPT-2 with transposed layers."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedConfig

from tests.unit.trainer import tiny


def tied_config(family: str) -> PreTrainedConfig:
    if family == "llama":
        return LlamaConfig(**{**tiny.make_config().to_dict(), "tie_word_embeddings": True})
    return GPT2Config(vocab_size=346, n_embd=64, n_layer=1, n_head=2, n_positions=512, bos_token_id=0, eos_token_id=1)


def save_tied(directory: Path, family: str, seed: int = 0) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(tied_config(family)).save_pretrained(directory)
    tiny.make_tokenizer().save_pretrained(directory)
    return directory
