"""Attention by boundaries equals attention under masks, and is used only where a probe verified it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma3TextConfig,
    GPT2Config,
    Lfm2Config,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from tests.unit.trainer import tiny
from tests.unit.trainer.tasks.text.reference_loss import plain_loss, random_rows
from trainyard_crds.trainingjob_training import Adapter
from trainyard_trainer.memory.recompute import recompute_of
from trainyard_trainer.tasks.text.batches import collate
from trainyard_trainer.tasks.text.loss import selected_logits, summed_loss
from trainyard_trainer.tasks.text.models import attention
from trainyard_trainer.tasks.text.models.adapter import add_adapter
from trainyard_trainer.tasks.text.models.attention import IMPLEMENTATION, use_boundaries, use_masks
from trainyard_trainer.tasks.text.models.recompute import recompute_activations
from trainyard_trainer.tasks.text.packing_isolation import enable_boundary_attention, isolates_packed_rows

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {**tiny.SMALL, "num_key_value_heads": 2, "initializer_range": 0.1}


def windowed(kind: str, window: int) -> PreTrainedModel:
    """A model with a sliding window in every layer (Mistral) or every second one (Gemma 3)."""
    torch.manual_seed(0)
    if kind == "mistral":
        return AutoModelForCausalLM.from_config(MistralConfig(**SIZES, sliding_window=window))
    layers = ["full_attention", "sliding_attention"]
    return AutoModelForCausalLM.from_config(
        Gemma3TextConfig(**SIZES, head_dim=16, sliding_window=window, layer_types=layers)
    )


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    torch.autograd.backward(loss)
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "gemma3"])
def test_loss_and_gradients_equal_masked_and_separate_rows(family: str) -> None:
    model = windowed(family, 5) if family in {"mistral", "gemma3"} else tiny.make_model(family)
    rows = random_rows(7)
    batch = collate(rows, [[3, 0, 5], [1, 6], [2, 4]], packed=True, pad_token=2)
    masked = summed_loss(model, batch)
    wanted = gradients(model, masked)
    assert enable_boundary_attention(model, 346, CPU)
    assert model.config._attn_implementation == IMPLEMENTATION
    loss = summed_loss(model, batch)
    assert loss.item() == pytest.approx(masked.item(), rel=1e-6)
    for name, gradient in gradients(model, loss).items():
        assert torch.allclose(gradient, wanted[name], atol=1e-4, rtol=1e-4), name
    with torch.no_grad():
        assert loss.item() == pytest.approx(sum(float(plain_loss(model, rows, row)) for row in range(7)), rel=1e-5)


def test_rows_do_not_attend_to_each_other() -> None:
    model = tiny.make_model()
    use_boundaries(model)
    batch = collate(random_rows(3), [[0, 1, 2]], packed=True, pad_token=2)
    assert batch.boundaries is not None
    start, stop = (int(place) for place in batch.boundaries[1:3])
    embedded: list[Tensor] = []

    def keep(_module: object, _inputs: object, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    model.get_input_embeddings().register_forward_hook(keep)
    logits = selected_logits(model, batch)
    chosen = (batch.loss_positions >= start) & (batch.loss_positions < stop)
    (gradient,) = torch.autograd.grad(logits[chosen].square().sum(), embedded)
    seen = gradient[0].abs().sum(-1) > 0
    last = int(batch.loss_positions[chosen].max())
    assert seen.nonzero().reshape(-1).tolist() == list(range(start, last + 1))


def test_padded_batch_and_plain_call_are_unchanged() -> None:
    model = tiny.make_model()
    rows = random_rows(4)
    padded = collate(rows, [[0], [1], [2], [3]], packed=False, pad_token=2)
    assert padded.boundaries is None
    with torch.no_grad():
        wanted = summed_loss(model, padded)
        alone = model(input_ids=torch.arange(9)[None]).logits
        use_boundaries(model)
        assert torch.equal(summed_loss(model, padded), wanted)
        assert torch.equal(model(input_ids=torch.arange(9)[None]).logits, alone)


def test_recomputed_layers_receive_the_boundaries() -> None:
    batch = collate(random_rows(6), [[0, 1, 2], [3, 4, 5]], packed=True, pad_token=2)
    found = []
    for mode in ("none", "full"):
        base = tiny.make_model()
        recompute_activations(base, recompute_of(mode, 2))
        model = add_adapter(base, Adapter(rank=4), seed=0, base="tiny", revision=None).train()
        assert enable_boundary_attention(model, 346, CPU)
        found.append(gradients(model, summed_loss(model, batch)))
    assert all(torch.equal(gradient, found[1][name]) for name, gradient in found[0].items())


def test_packed_call_without_boundaries_uses_masks() -> None:
    model = tiny.make_model()
    rows = torch.arange(16)[None]
    positions = torch.arange(8).repeat(2)[None]
    with torch.no_grad():
        wanted = model(input_ids=rows, position_ids=positions, use_cache=False).logits
        use_boundaries(model)
        assert torch.equal(model(input_ids=rows, position_ids=positions, use_cache=False).logits, wanted)


def test_architecture_that_drops_boundaries_uses_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.make_model()
    attend = attention._attend

    def deaf(*inputs: Any, cu_seq_lens_q: Tensor | None = None, **options: Any) -> tuple[Tensor, None]:
        return attend(*inputs, **options)

    monkeypatch.setattr(attention, "_attend", deaf)
    assert not enable_boundary_attention(model, 346, CPU)
    assert model.config._attn_implementation == "sdpa"
    batch = collate(random_rows(3), [[0, 1, 2]], packed=True, pad_token=2)
    with torch.no_grad():
        wanted = summed_loss(tiny.make_model(), batch)
        assert torch.equal(summed_loss(model, batch), wanted)
        use_boundaries(model)
        assert summed_loss(model, batch).item() != pytest.approx(wanted.item(), rel=1e-3)


def test_kernel_error_falls_back_to_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_inputs: Any, **_options: Any) -> Tensor:
        raise RuntimeError("no kernel for these heads")

    monkeypatch.setattr(attention, "_row_by_row", refuse)
    model = tiny.make_model()
    assert not enable_boundary_attention(model, 346, CPU)
    assert model.config._attn_implementation == "sdpa"


def test_other_architectures_are_probed() -> None:
    sizes = {"vocab_size": 346, "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64}
    model = AutoModelForCausalLM.from_config(GPT2Config(**sizes)).eval()
    batch = collate(random_rows(3), [[0, 1, 2]], packed=True, pad_token=2)
    with torch.no_grad():
        wanted = summed_loss(model, batch).item()
        if enable_boundary_attention(model, 346, CPU):
            assert summed_loss(model, batch).item() == pytest.approx(wanted, rel=1e-5)


def test_saved_model_has_no_attention_setting(tmp_path: Any) -> None:
    model = tiny.make_model()
    use_boundaries(model)
    model.save_pretrained(tmp_path)
    assert IMPLEMENTATION not in (tmp_path / "config.json").read_text()
    use_masks(model)
    assert model.config._attn_implementation == "sdpa"


WEAKLY_MIXING: dict[str, PretrainedConfig] = {
    "bloom": BloomConfig(vocab_size=346, hidden_size=64, n_layer=2, n_head=4),
    "lfm2": Lfm2Config(**{**SIZES, "initializer_range": 0.02}, layer_types=["conv", "full_attention"]),
}
"""Their rows see each other, but with these small weights the logits hardly show it."""


@pytest.mark.parametrize("name", WEAKLY_MIXING)
def test_rows_that_hardly_see_each_other_are_detected(name: str) -> None:
    torch.manual_seed(0)
    assert not isolates_packed_rows(AutoModelForCausalLM.from_config(WEAKLY_MIXING[name]), 346, CPU)
