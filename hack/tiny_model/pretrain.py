"""Pre-training of a small Llama on packed text with a plain torch loop."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tiny_model.muon import Muon


@dataclass(frozen=True)
class Recipe:
    """Sizes and optimisation of the pre-training.

    Attributes:
        vocabulary: Tokens in the tokenizer.
        context: Longest sequence the model is configured for, tokens.
        block: Length of a training sequence, tokens.
        batch: Training sequences of one step.
        steps: Optimiser steps; the text is repeated or cut to fit.
        learning_rate: Peak for embeddings and norms.
        muon_learning_rate: Peak for the matrices.
    """

    vocabulary: int = 2048
    context: int = 1024
    hidden: int = 192
    layers: int = 4
    heads: int = 6
    block: int = 128
    batch: int = 6
    steps: int = 420
    learning_rate: float = 2e-3
    muon_learning_rate: float = 1e-2
    seed: int = 17


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A randomly initialised Llama; the same recipe always gives the same weights."""
    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=recipe.vocabulary,
            hidden_size=recipe.hidden,
            intermediate_size=recipe.hidden * 2,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            max_position_embeddings=recipe.context,
            initializer_range=0.05,  # the usual 0.02 is too small for a narrow model
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    with torch.no_grad():
        for layer in model.model.layers:  # start by attending to equal tokens, as trained models do
            layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
            layer.self_attn.o_proj.weight.copy_(layer.self_attn.v_proj.weight.T)
    return model


def pack(documents: list[str], tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> torch.Tensor:
    """Concatenate the shuffled documents, each between its begin and end tokens, into blocks (blocks, block)."""
    order = list(documents)
    random.Random(recipe.seed).shuffle(order)
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    stream = [token for ids in tokenizer(order, verbose=False).input_ids for token in (begin, *ids, end)]
    blocks = len(stream) // recipe.block
    return torch.tensor(stream[: blocks * recipe.block]).view(blocks, recipe.block)


def pretrain(
    model: LlamaForCausalLM, blocks: torch.Tensor, recipe: Recipe, report: Callable[[int, float, float], None]
) -> None:
    """Train in place; `report` receives step, loss and elapsed seconds ten times."""
    optimizers = _optimizers(model, recipe)
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: _pace(step, recipe.steps)) for o in optimizers]
    started = time.monotonic()
    model.train()
    for step in range(recipe.steps):
        batch = blocks[torch.arange(step * recipe.batch, (step + 1) * recipe.batch) % len(blocks)]
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        model.zero_grad()
        if (step + 1) % max(1, recipe.steps // 10) == 0:
            report(step + 1, loss.item(), time.monotonic() - started)
    model.eval()


def _optimizers(model: LlamaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices, which needs fewer tokens than AdamW; AdamW for the rest."""
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in named if p.ndim != 2 or "embed" in name]
    return [
        Muon(matrices, lr=recipe.muon_learning_rate, weight_decay=0.05),
        torch.optim.AdamW(others, lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def _pace(step: int, steps: int) -> float:
    """Warm up over 5 % of the steps, hold to the middle, then decay linearly to zero."""
    return min(1.0, (step + 1) / max(1, steps // 20), 2 * (1 - step / steps))
