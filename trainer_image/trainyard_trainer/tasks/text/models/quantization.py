"""4-bit storage of frozen base models, by bitsandbytes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from trainyard_crds.trainingjob_training import Quantization
from trainyard_trainer.errors import first_line
from trainyard_trainer.tasks.text.models.libraries import import_bitsandbytes


def quantization_config(quantization: Quantization, compute_dtype: torch.dtype) -> Any:
    """Return the options with which transformers loads a model in 4 bits."""
    import_bitsandbytes()
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.type,
        bnb_4bit_use_double_quant=quantization.double_quant,
        bnb_4bit_compute_dtype=compute_dtype,
    )


class Quantized(NamedTuple):
    """What of a model's matrices is stored in 4 bits; embeddings and the head never are.

    Attributes:
        values: Number of values in 4 bits.
        rest: Number of values of the other matrices.
        rest_bytes: Their bytes.
        example: The largest of those matrices; empty if there is none.
    """

    values: int
    rest: int
    rest_bytes: int
    example: str


def count_quantized(model: Any) -> Quantized:
    """Count the values of a loaded model's matrices. transformers quantises plain linear layers and no others."""
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    tables |= {id(head.weight) for head in [model.get_output_embeddings()] if head is not None}
    values, rest = 0, {}
    for name, parameter in model.named_parameters():
        if (state := getattr(parameter, "quant_state", None)) is not None:
            values += state.shape.numel()
        elif parameter.ndim > 1 and id(parameter) not in tables:
            rest[name] = parameter
    return Quantized(
        values=values,
        rest=sum(parameter.numel() for parameter in rest.values()),
        rest_bytes=sum(parameter.nbytes for parameter in rest.values()),
        example=max(rest, key=lambda name: rest[name].numel(), default=""),
    )


def computing_fault(model: Any) -> str | None:
    """Return why a loaded model cannot compute with its 4-bit weights; None if it can.

    Some architectures read a layer's weights themselves, beside its forward pass.
    """
    tokens = torch.zeros((1, 4), dtype=torch.int64, device=next(model.parameters()).device)
    try:
        with torch.no_grad():
            model(input_ids=tokens, use_cache=False)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        return first_line(error)
    return None


def disable_weight_repacking(model: nn.Module) -> None:
    """Disable the in-place repacking of 4-bit weights on CPUs with AVX512-BF16.

    There, the first forward pass in evaluation mode rewrites a 4-bit weight into a layout with bf16 scales for good:
    the logits of later training differ, and merging gives garbage. Without repacking, an evaluation changes no bit.
    """
    bitsandbytes = import_bitsandbytes()
    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
