"""Greedy generation with a language model."""

from __future__ import annotations

from typing import Any

import torch

from trainyard_trainer.tasks.text.loss import evaluation_mode


def greedy(model: Any, tokenizer: Any, prompt: list[int], *, max_new_tokens: int) -> str:
    """Generate a continuation, always with the most likely token; special tokens are removed.

    Args:
        model: A causal language model, with or without an adapter.
        tokenizer: Its tokenizer.
        prompt: Tokens to continue.
        max_new_tokens: Limit of the continuation.
    """
    from transformers import GenerationConfig

    # Overrides the sampling settings and penalties of the model's generation config.
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(_end_tokens(model, tokenizer)) or None,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
    )
    tokens = torch.tensor([prompt], device=next(model.parameters()).device)
    with evaluation_mode(model), torch.no_grad():
        output = model.generate(input_ids=tokens, attention_mask=torch.ones_like(tokens), generation_config=config)
    return str(tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True)).strip()


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Return all end tokens: a chat model may declare that of a turn in its generation config or its tokenizer."""
    declared = model.generation_config.eos_token_id if model.generation_config is not None else None
    listed = declared if isinstance(declared, list) else [declared]
    return {token for token in [*listed, tokenizer.eos_token_id] if token is not None}
