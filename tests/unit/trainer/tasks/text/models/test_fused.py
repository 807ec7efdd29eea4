"""Fused LoRA layers equal PEFT's, keep less memory, and fall back to PEFT where they are unsupported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, GPT2Config

from tests.unit.trainer import tiny
from trainyard_crds.trainingjob_training import Adapter, Quantization
from trainyard_trainer.memory.recompute import recompute_of
from trainyard_trainer.tasks.text.models.adapter import add_adapter, save_adapter
from trainyard_trainer.tasks.text.models.fused import LoraLinear, fuse_adapter
from trainyard_trainer.tasks.text.models.loading import load_base_model
from trainyard_trainer.tasks.text.models.recompute import recompute_activations

TOKENS = torch.arange(60).reshape(3, 20)


def adapted(base: Any, **options: Any) -> Any:
    """With a fused adapter whose B is not zero, as it is behind some steps."""
    model = add_adapter(base, Adapter(rank=4, alpha=12, **options), seed=0, base="tiny", revision=None).train()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model


def unfused(model: Any) -> Any:
    """PEFT's own layers again."""
    for module in model.modules():
        vars(module).pop("forward", None)
    return model


def num_fused(model: nn.Module) -> int:
    return sum("forward" in vars(module) for module in model.modules())


def logits_and_gradients(model: Any) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    output = model(input_ids=TOKENS, labels=TOKENS, use_cache=False)
    torch.autograd.backward(output.loss)
    grads = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
    return output.logits.detach().float(), grads


def error(one: Tensor, other: Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    return float((one.float() - other.float()).abs().max() / other.float().abs().max())


def quantized(directory: Path, precision: Any) -> Any:
    tiny.save_tiny_model(directory)
    return load_base_model(
        directory, "tiny", precision=precision, device=torch.device("cpu"), quantization=Quantization()
    )


BASES: dict[str, Callable[[Path], Any]] = {
    "llama": lambda _: tiny.make_model("llama"),
    "qwen2, which has biases": lambda _: tiny.make_model("qwen2"),
    "qwen3": lambda _: tiny.make_model("qwen3"),
    "4 bits": lambda directory: quantized(directory, "fp32"),
}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("use_rslora", [False, True])
def test_fused_logits_and_gradients_equal_peft(tmp_path: Path, base: str, use_rslora: bool) -> None:
    model = adapted(BASES[base](tmp_path), use_rslora=use_rslora)
    assert num_fused(model) == 14
    logits, gradients = logits_and_gradients(model)
    wanted_logits, wanted = logits_and_gradients(unfused(model))
    assert error(logits, wanted_logits) < 1e-5
    assert gradients.keys() == wanted.keys()
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        assert error(gradient, wanted[name]) < 1e-4, name


def test_bf16_error_is_within_bf16_precision() -> None:
    """Against fp32, of which PEFT's own layers in bf16 are as far away."""
    exact_logits, exact = logits_and_gradients(unfused(adapted(tiny.make_model())))
    model = adapted(tiny.make_model().to(torch.bfloat16))
    logits, gradients = logits_and_gradients(model)
    peft_logits, peft = logits_and_gradients(unfused(model))
    assert error(logits, exact_logits) < 1.5 * error(peft_logits, exact_logits)
    ours = sum(error(gradients[name], exact[name]) for name in exact)
    assert ours < 1.5 * sum(error(peft[name], exact[name]) for name in exact)


def bytes_kept(model: Any) -> dict[torch.dtype, int]:
    """For the backward pass, the same storage once, the model's own tensors not."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(input_ids=TOKENS, labels=TOKENS, use_cache=False)
    totals: dict[torch.dtype, int] = {}
    for place, tensor in kept.items():
        if place not in own:
            totals[tensor.dtype] = totals.get(tensor.dtype, 0) + tensor.untyped_storage().nbytes()
    torch.autograd.backward(output.loss)
    return totals


def test_inputs_are_not_kept_in_fp32() -> None:
    model = adapted(tiny.make_model().to(torch.bfloat16))
    fused, plain = bytes_kept(model), bytes_kept(unfused(model))
    # 2 layers, 60 tokens: q, k, v, o, gate and up read 128 values, down 256
    copies = 2 * 60 * 4 * (6 * 128 + 256)
    assert plain[torch.float32] - fused[torch.float32] >= copies
    once = 2 * 60 * 2 * (128 + 128 + 128 + 256)  # bf16: q, k and v share theirs, and so do gate and up
    assert sum(plain.values()) - sum(fused.values()) >= copies - once


def test_inputs_without_gradient_cost_no_product() -> None:
    base = nn.Linear(32, 48, bias=False).requires_grad_(requires_grad=False)
    down, up = nn.Parameter(torch.randn(4, 32)), nn.Parameter(torch.randn(48, 4))

    def cost(inputs: Tensor) -> int:
        output = LoraLinear.apply(inputs, down, up, 1.0, base, base.weight)
        with FlopCounterMode(display=False) as counter:
            torch.autograd.backward(output.sum())
        return int(counter.get_total_flops())

    adapter = 2 * 10 * 4 * (48 + 48 + 32)
    assert cost(torch.randn(10, 32)) == adapter
    assert (
        cost(torch.randn(10, 32, requires_grad=True)) == adapter + 2 * 10 * 32 * 48
    )  # and the addmm_ it does not count


@pytest.mark.parametrize(
    ("options", "fused"),
    [({"dropout": 0.1}, 0), ({"targets": ["q_proj", "lm_head"]}, 3), ({"modules_to_save": ["embed_tokens"]}, 14)],
)
def test_only_supported_layers_are_fused(options: dict[str, Any], fused: int) -> None:
    assert num_fused(adapted(tiny.make_model(), **options)) == fused


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_bias": True}])
def test_lora_variants_are_not_fused(options: dict[str, Any]) -> None:
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", **options)
    assert fuse_adapter(get_peft_model(tiny.make_model(), config)) == 0


def test_transposed_layers_are_not_fused() -> None:
    sizes = {"vocab_size": 346, "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64}
    model = AutoModelForCausalLM.from_config(GPT2Config(**sizes))
    assert num_fused(adapted(model)) == 0


def test_inactive_merged_or_second_adapter_uses_peft() -> None:
    model = adapted(tiny.make_model()).eval()
    with torch.no_grad():
        base = tiny.make_model()(input_ids=TOKENS, use_cache=False).logits
        on = model(input_ids=TOKENS, use_cache=False).logits
        with model.disable_adapter():
            assert torch.equal(model(input_ids=TOKENS, use_cache=False).logits, base)
        model.merge_adapter()
        assert error(model(input_ids=TOKENS, use_cache=False).logits, on) < 1e-5
        model.unmerge_adapter()
        rows = model(input_ids=TOKENS, use_cache=False, adapter_names=["default", "__base__", "default"]).logits
        assert error(rows[0], on[0]) < 1e-5
        assert error(rows[1], base[1]) < 1e-5
        model.add_adapter("other", LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
        model.set_adapter("other")
        assert error(model(input_ids=TOKENS, use_cache=False).logits, base) < 1e-5  # its B is zero
        model.set_adapter("default")
        assert error(model(input_ids=TOKENS, use_cache=False).logits, on) < 1e-5


def test_saved_fused_adapter_loads_in_peft(tmp_path: Path) -> None:
    model = adapted(tiny.make_model()).eval()
    save_adapter(model, tmp_path)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    plain = get_peft_model(tiny.make_model(), config)
    names = [get_peft_model_state_dict(each, save_embedding_layers=False).keys() for each in (model, plain)]
    assert names[0] == names[1]
    loaded = PeftModel.from_pretrained(tiny.make_model(), str(tmp_path)).eval()
    assert num_fused(loaded) == 0
    with torch.no_grad():
        ours, theirs = (each(input_ids=TOKENS, use_cache=False).logits for each in (model, loaded))
    assert error(ours, theirs) < 1e-5


@pytest.mark.parametrize("mode", ["full", "offload"])
def test_recomputed_fused_layers_have_same_gradients(mode: Any) -> None:
    _, wanted = logits_and_gradients(adapted(tiny.make_model()))
    base = tiny.make_model()
    recompute_activations(base, recompute_of(mode, 2))
    _, gradients = logits_and_gradients(adapted(base))
    assert all(torch.equal(gradients[name], gradient) for name, gradient in wanted.items())
