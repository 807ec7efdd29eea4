"""Answers of a language model."""

from __future__ import annotations

from typing import Any

import torch

from trainyard_trainer.tasks.llm.loss import evaluating


def greedy(model: Any, tokenizer: Any, prompt: list[int], *, max_new_tokens: int) -> str:
    """The text a model goes on with, always its most likely token; special tokens are left out.

    Args:
        model: A causal language model, with or without an adapter.
        tokenizer: Its tokenizer.
        prompt: Tokens to go on from.
        max_new_tokens: Where to stop if it does not stop itself.
    """
    from transformers import GenerationConfig

    # What is said here wins over the sampling settings and penalties a model may bring.
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(_end_tokens(model, tokenizer)) or None,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
    )
    tokens = torch.tensor([prompt], device=next(model.parameters()).device)
    with evaluating(model), torch.no_grad():
        output = model.generate(input_ids=tokens, attention_mask=torch.ones_like(tokens), generation_config=config)
    return str(tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True)).strip()


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Chat models end a turn with another token than a text, and say so in either place."""
    declared = model.generation_config.eos_token_id if model.generation_config is not None else None
    listed = declared if isinstance(declared, list) else [declared]
    return {token for token in [*listed, tokenizer.eos_token_id] if token is not None}
