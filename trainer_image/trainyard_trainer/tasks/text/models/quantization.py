"""4-bit storage of frozen base models, by bitsandbytes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from trainyard_crds.trainingjob_training import Quantization
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


def disable_weight_repacking(model: nn.Module) -> None:
    """Disable the in-place repacking of 4-bit weights on CPUs with AVX512-BF16.

    There, the first forward pass in evaluation mode rewrites a 4-bit weight into a layout with bf16 scales for good:
    the logits of later training differ, and merging gives garbage. Without repacking, an evaluation changes no bit.
    """
    bitsandbytes = import_bitsandbytes()
    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
