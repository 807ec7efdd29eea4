"""Attention of packed rows by position boundaries: per row, instead of per sequence under a mask.

A mask costs the square of the sequence's length, boundaries the square of each row's. transformers calls the function
registered here under `IMPLEMENTATION` and passes it the boundaries of the call (`cu_seq_lens_q`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

IMPLEMENTATION = "trainyard_rows"
_MASKED = "sdpa"
_in_packed_call: ContextVar[bool] = ContextVar("in_packed_call", default=False)
"""transformers builds masks before it calls the layers, without the boundaries."""


def has_eager_attention(model: Any) -> bool:
    """Whether the model computes whole attention matrices: its architecture supports no fused attention.

    Recurrent models (Mamba, RWKV) are loaded as eager too, but have no attention heads.
    """
    return _implementation(model) == "eager" and bool(getattr(model.config, "num_attention_heads", None))


def can_use_boundaries(model: Any) -> bool:
    """Whether the model's attention can be replaced, and its device has a kernel for its type."""
    base = _base(model)
    if not getattr(base, "_supports_attention_backend", False) or _implementation(base) != _MASKED:
        return False
    if base.device.type == "cpu":
        return True
    dropout = getattr(base.config, "attention_dropout", 0.0)  # unsupported by the GPU's kernel
    return base.dtype in {torch.bfloat16, torch.float16} and not dropout


def use_boundaries(model: Any) -> None:
    """Use boundaries in calls that pass them, and masks elsewhere."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(IMPLEMENTATION, _attend)
    AttentionMaskInterface.register(IMPLEMENTATION, _mask)
    _base(model).set_attn_implementation(IMPLEMENTATION)


def use_masks(model: Any) -> None:
    """Undo `use_boundaries`."""
    _base(model).set_attn_implementation(_MASKED)


@contextmanager
def packed_call(model: Any, boundaries: Tensor | None, longest: int) -> Iterator[dict[str, Any]]:
    """Yield the options for one call of the model; none where its attention uses masks.

    Args:
        model: A causal language model of transformers, with or without a PEFT adapter.
        boundaries: (R + 1,), int32: where each of the R rows of a batch begins and the last one ends, line after line;
            None for rows that are not packed.
        longest: Tokens of the longest row.
    """
    if boundaries is None or _implementation(model) != IMPLEMENTATION:
        yield {}
        return
    token = _in_packed_call.set(True)
    try:
        yield {
            "cu_seq_lens_q": boundaries,
            "cu_seq_lens_k": boundaries,
            "max_length_q": longest,
            "max_length_k": longest,
        }
    finally:
        _in_packed_call.reset(token)


def _implementation(model: Any) -> str:
    return str(model.config._attn_implementation)  # noqa: SLF001 - no public name


def _base(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _mask(*, attention_mask: Tensor | None = None, local_size: int | None = None, **options: Any) -> Tensor | None:
    """Return no mask in a packed call, except for sliding-window layers; else SDPA's mask."""
    from transformers.masking_utils import sdpa_mask

    if _in_packed_call.get() and attention_mask is None and local_size is None:
        return None
    mask: Tensor | None = sdpa_mask(attention_mask=attention_mask, local_size=local_size, **options)
    return mask


def _attend(  # noqa: PLR0917 - transformers passes them by position
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Compute causal attention of (B, heads, T, D) queries: by boundaries, else by SDPA."""
    boundaries = options.get("cu_seq_lens_q")
    if boundaries is None or attention_mask is not None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        masked: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
        return masked
    batch, _, width, _ = query.shape
    # (B * T, heads, D), mostly without a copy
    query, key, value = (each.transpose(1, 2).flatten(0, 1) for each in (query, key, value))
    if query.device.type == "cpu":
        output = _row_by_row(query, key, value, boundaries.diff().tolist(), dropout=dropout, scaling=scaling)
    else:
        output = _by_kernel(query, key, value, boundaries, options["max_length_q"], scaling=scaling)
    return output.view(batch, width, *output.shape[1:]), None


def _row_by_row(
    query: Tensor, key: Tensor, value: Tensor, lengths: list[int], *, dropout: float, scaling: float | None
) -> Tensor:
    """Attend row by row: the CPU has no kernel for rows of different lengths."""
    grouped = query.shape[1] != key.shape[1]
    queries, keys, values = (torch.split(each.transpose(0, 1)[None], lengths, dim=2) for each in (query, key, value))
    outputs = [
        functional.scaled_dot_product_attention(
            one, its_key, its_value, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=grouped
        )
        for one, its_key, its_value in zip(queries, keys, values, strict=True)
    ]
    return torch.cat([output[0].transpose(0, 1) for output in outputs])


def _by_kernel(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, longest: int, *, scaling: float | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    grouped = query.shape[1] != key.shape[1]
    output = varlen_attn(
        query,
        key,
        value,
        boundaries,
        boundaries,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0),
        enable_gqa=grouped,
    )
    assert isinstance(output, Tensor)
    return output
