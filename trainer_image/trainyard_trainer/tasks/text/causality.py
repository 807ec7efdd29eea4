"""Check, when a model is loaded, that a token's prediction does not depend on the tokens after it."""

from __future__ import annotations

from typing import Any

import torch

from trainyard_trainer.tasks.text.dependence import depends

_LENGTH = 8


def is_causal(model: Any, vocabulary: int, device: torch.device) -> bool:
    """Whether the first logits of a sequence depend on its first tokens only; see `depends`."""
    tokens = torch.arange(_LENGTH, device=device).remainder(vocabulary)[None]
    half = _LENGTH // 2
    return not depends(model, tokens, logits=slice(half), inputs=slice(half, None))
