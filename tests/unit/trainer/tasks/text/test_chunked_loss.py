"""The chunked loss equals the plain one and never allocates all logits."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, Gemma2Config, GraniteConfig, PreTrainedModel

from tests.unit.trainer import tiny
from tests.unit.trainer.tasks.text.reference_loss import random_rows
from trainyard_crds.trainingjob_training import Adapter
from trainyard_trainer.tasks.text.batches import TextBatch, collate
from trainyard_trainer.tasks.text.chunked_loss import ChunkedCrossEntropy
from trainyard_trainer.tasks.text.loss import find_chunk_rows, selected_logits, summed_loss
from trainyard_trainer.tasks.text.memory.chunks import rows_per_chunk
from trainyard_trainer.tasks.text.models.adapter import add_adapter

CPU = torch.device("cpu")


def parts(dtype: torch.dtype, *, trained: bool, bias: bool) -> tuple[Tensor, nn.Linear, Tensor]:
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(24, 301, bias=bias, dtype=dtype).requires_grad_(trained)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    hidden = torch.randn(37, 24, generator=generator).to(dtype).requires_grad_()
    return hidden, head, torch.randint(0, 301, (37,), generator=generator)


@pytest.mark.parametrize("rows", [1, 10, 37, 1000])
@pytest.mark.parametrize(("trained", "bias"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_chunked_loss_and_gradients_equal_plain_ones(
    dtype: torch.dtype, tolerance: float, trained: bool, bias: bool, rows: int
) -> None:
    hidden, head, labels = parts(dtype, trained=trained, bias=bias)
    wanted: list[Tensor] = [hidden, *(parameter for parameter in head.parameters() if trained)]
    plain = nn.functional.cross_entropy(head(hidden).float(), labels, reduction="sum")
    chunked = ChunkedCrossEntropy.apply(hidden, head.weight, head.bias, labels, rows)
    assert chunked.item() == pytest.approx(plain.item(), rel=1e-6)
    theirs = torch.autograd.grad(plain / 7, wanted)
    ours = torch.autograd.grad(chunked / 7, wanted)
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == other.dtype
        assert (one - other).abs().max() <= tolerance * other.abs().max()


def test_second_backward_pass_accumulates() -> None:
    hidden, head, labels = parts(torch.float32, trained=True, bias=True)
    loss = ChunkedCrossEntropy.apply(hidden, head.weight, head.bias, labels, 10)
    torch.autograd.backward(loss, retain_graph=True)
    assert hidden.grad is not None
    once = hidden.grad.clone()
    torch.autograd.backward(loss)
    assert torch.equal(hidden.grad, 2 * once)


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most elements of any floating-point tensor an operation gave."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, tuple | list) else [output]:
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                self.elements = max(self.elements, tensor.numel())
        return output


def largest(loss: Callable[[], Tensor]) -> int:
    with Largest() as seen:  # type: ignore[no-untyped-call]
        torch.autograd.backward(loss())
    return int(seen.elements)


def test_whole_logits_are_never_allocated() -> None:
    hidden = torch.randn(400, 8).requires_grad_()
    head = nn.Linear(8, 500, bias=False).requires_grad_(requires_grad=False)
    labels = torch.zeros(400, dtype=torch.int64)
    plain = largest(lambda: nn.functional.cross_entropy(head(hidden).float(), labels, reduction="sum"))
    assert plain == 400 * 500
    assert largest(lambda: ChunkedCrossEntropy.apply(hidden, head.weight, None, labels, 16)) == 16 * 500


def test_backward_pass_keeps_only_gradients() -> None:
    hidden, head, labels = parts(torch.float32, trained=False, bias=False)
    kept: list[torch.Size] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ChunkedCrossEntropy.apply(hidden, head.weight, None, labels, 10)
    assert kept == [hidden.shape]


def a_batch() -> TextBatch:
    return collate(random_rows(7), [[3, 0, 5], [1, 6], [2, 4]], packed=True, pad_token=2)


def gradients(model: Any, batch: TextBatch, chunk_rows: int | None) -> tuple[float, dict[str, Tensor]]:
    model.zero_grad()
    loss = summed_loss(model, batch, chunk_rows)
    torch.autograd.backward(loss)
    return loss.item(), {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_model_trains_the_same_in_chunks(family: str, method: str) -> None:
    model: Any = tiny.make_model(family)
    if method == "lora":
        model = add_adapter(model, Adapter(rank=4), seed=0, base="tiny", revision=None)
    model.train()
    assert find_chunk_rows(model, CPU) == rows_per_chunk(346)
    plain, wanted = gradients(model, a_batch(), None)
    chunked, ours = gradients(model, a_batch(), 5)
    assert chunked == pytest.approx(plain, rel=1e-6)
    assert wanted.keys() == ours.keys()
    for name, gradient in wanted.items():
        assert torch.allclose(ours[name], gradient, atol=1e-5, rtol=1e-4), name
    assert selected_logits(model, a_batch()).shape == (a_batch().loss_weight, 346)


def other_model(kind: str) -> PreTrainedModel:
    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    sizes |= {"num_key_value_heads": 1, "vocab_size": 346, "initializer_range": 0.1}
    if kind == "gemma2":
        return AutoModelForCausalLM.from_config(Gemma2Config(**sizes, head_dim=32, final_logit_softcapping=3.0))
    return AutoModelForCausalLM.from_config(GraniteConfig(**sizes, logits_scaling=4.0))


@pytest.mark.parametrize("kind", ["gemma2", "granite"])
def test_capped_or_scaled_logits_are_not_chunked(kind: str) -> None:
    model = other_model(kind)
    assert find_chunk_rows(model, CPU) is None
    batch = a_batch()
    with torch.no_grad():
        capped = summed_loss(model, batch, find_chunk_rows(model, CPU))
        assert capped.item() != pytest.approx(summed_loss(model, batch, 5).item(), rel=1e-3)


class InPlace(nn.Module):
    """A model that changes its logits in place."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 9)

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, input_ids: Tensor, **_options: object) -> Any:
        logits = self.head(torch.ones(*input_ids.shape, 4))
        logits[..., 3] = -1e9
        return type("Output", (), {"logits": logits})


def test_inplace_logits_and_adapted_heads_are_not_chunked() -> None:
    assert find_chunk_rows(InPlace(), CPU) is None
    adapter = Adapter(rank=4, targets=["lm_head"])
    assert find_chunk_rows(add_adapter(tiny.make_model(), adapter, seed=0, base="tiny", revision=None), CPU) is None


def test_large_vocabulary_has_small_chunks() -> None:
    assert [rows_per_chunk(size) for size in (32_768, 131_072, 2**27)] == [2048, 512, 1]
