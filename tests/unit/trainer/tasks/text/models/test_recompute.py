"""Recomputed activations: the same gradients, bit for bit, in every mode."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.unit.trainer import tiny
from tests.unit.trainer.tasks.text.memory.batches import full_batch
from trainyard_crds.trainingjob_training import Adapter
from trainyard_trainer.errors import ConfigurationError
from trainyard_trainer.memory.recompute import Recompute, recompute_of
from trainyard_trainer.tasks.text.loss import summed_loss
from trainyard_trainer.tasks.text.models.adapter import add_adapter
from trainyard_trainer.tasks.text.models.recompute import HostInputs, recompute_activations

LAYERS = tiny.make_model().config.num_hidden_layers
WAYS = [recompute_of("selective", LAYERS), recompute_of("full", LAYERS), recompute_of("offload", LAYERS)]


def model_with(way: Recompute, adapter: Adapter | None) -> Any:
    model: Any = tiny.make_model()
    if adapter is not None:
        model = add_adapter(model, adapter, seed=0, base="tiny", revision=None)
    recompute_activations(model, way)
    return model.train()


def gradients(way: Recompute, adapter: Adapter | None) -> dict[str, Tensor]:
    model = model_with(way, adapter)
    torch.manual_seed(0)
    torch.autograd.backward(summed_loss(model, full_batch(1, 24), 16))
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("adapter", [None, Adapter(rank=4, dropout=0.1)], ids=["full", "lora with dropout"])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_gradients_equal_plain_pass(way: Recompute, adapter: Adapter | None) -> None:
    plain, found = gradients(recompute_of("none", LAYERS), adapter), gradients(way, adapter)
    assert plain.keys() == found.keys()
    assert len(plain) >= 14
    assert all(torch.equal(gradient, found[name]) for name, gradient in plain.items())
    assert any(bool(gradient.abs().sum() > 0) for gradient in plain.values())


def saved_bytes(way: Recompute) -> int:
    """Bytes that autograd keeps from the forward to the backward pass, each storage once."""
    model, kept = model_with(way, None), {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        summed_loss(model, full_batch(1, 24), 16)
    return sum(size for key, size in kept.items() if key not in parameters)


def test_each_recompute_mode_keeps_less() -> None:
    kept = [saved_bytes(way) for way in (recompute_of("none", LAYERS), *WAYS[:2])]
    assert kept[0] > kept[1] > kept[2]


def test_selective_keeps_activations_of_last_layers() -> None:
    model = model_with(recompute_of("selective", LAYERS, 1), None)
    assert [layer.gradient_checkpointing for layer in model.model.layers] == [True] + [False] * (LAYERS - 1)


def test_offloaded_inputs_are_freed_after_backward_pass() -> None:
    run, weight = HostInputs(), nn.Parameter(torch.ones(3))
    given = torch.arange(3.0, requires_grad=True) * 2
    result = run(lambda x: (x * weight).sin(), given)
    newest = run._newest
    assert newest is not None
    assert newest() is not None
    torch.autograd.backward(result.sum())
    del result
    assert newest() is None
    assert weight.grad is not None
    assert torch.equal(weight.grad, (given * torch.cos(given)).detach())


def test_architecture_without_recompute_support_is_named() -> None:
    model: Any = nn.Linear(2, 2)
    model.config = type("Config", (), {"model_type": "odd"})
    recompute_activations(model, recompute_of("none", 2))
    with pytest.raises(ConfigurationError, match=r"architecture \(odd\) cannot be computed again") as caught:
        recompute_activations(model, recompute_of("full", 2))
    assert "recompute: none" in caught.value.advice
