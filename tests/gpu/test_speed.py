"""What makes training fast on a GPU gives what the plain path gives: attention by rows, fused LoRA in bf16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.unit.trainer.tasks.text.reference_loss import random_rows
from trainyard_crds.trainingjob_training import Adapter, Quantization
from trainyard_trainer.tasks.text.batches import TextBatch, collate
from trainyard_trainer.tasks.text.loss import summed_loss
from trainyard_trainer.tasks.text.models.adapter import add_adapter
from trainyard_trainer.tasks.text.models.attention import use_masks
from trainyard_trainer.tasks.text.models.loading import load_base_model
from trainyard_trainer.tasks.text.packing_isolation import enable_boundary_attention

GPU = torch.device("cuda", 0)


def load(directory: Path, *, quantized: bool) -> Any:
    quantization = Quantization() if quantized else None
    base = load_base_model(directory, "tiny", precision="bf16", device=GPU, quantization=quantization)
    model = add_adapter(base, Adapter(rank=4), seed=0, base="tiny", revision=None).train()
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    return model


def a_batch() -> TextBatch:
    return collate(random_rows(7), [[3, 0, 5], [1, 6], [2, 4]], packed=True, pad_token=2).to(GPU)


def gradients(model: Any) -> tuple[float, Tensor]:
    model.zero_grad()
    loss = summed_loss(model, a_batch())
    torch.autograd.backward(loss)
    return loss.item(), torch.cat([one.grad.reshape(-1) for one in model.parameters() if one.grad is not None])


def similarity(one: Tensor, other: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one, other, dim=0))


@pytest.mark.parametrize("quantized", [False, True])
def test_boundary_attention_has_gradients_of_masks(tiny_model: Path, quantized: bool) -> None:
    model = load(tiny_model, quantized=quantized)
    assert enable_boundary_attention(model, 346, GPU)
    loss, gradient = gradients(model)
    use_masks(model)
    wanted_loss, wanted = gradients(model)
    assert loss == pytest.approx(wanted_loss, rel=1e-2)
    assert similarity(gradient, wanted) > 0.999


@pytest.mark.parametrize("quantized", [False, True])
def test_fused_lora_has_gradients_of_peft(tiny_model: Path, quantized: bool) -> None:
    model = load(tiny_model, quantized=quantized)
    loss, gradient = gradients(model)
    for module in model.modules():
        vars(module).pop("forward", None)
    wanted_loss, wanted = gradients(model)
    assert loss == pytest.approx(wanted_loss, rel=1e-2)
    assert similarity(gradient, wanted) > 0.999
