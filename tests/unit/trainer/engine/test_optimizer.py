"""Every optimizer resumes from its packed state bit for bit."""

import pytest
import torch
from torch import nn

from trainyard_crds.optimizers import OPTIMIZERS, OptimizerName
from trainyard_trainer.engine.optimizer import create_optimizer, pack_optimizer, set_learning_rates, unpack_optimizer
from trainyard_trainer.engine.task import ParameterGroup

KINDS = tuple(OPTIMIZERS)


def groups() -> list[ParameterGroup]:
    """A matrix large enough for 8 bits, and a vector that stays in 32."""
    generator = torch.Generator().manual_seed(0)
    matrix = nn.Parameter(torch.randn(96, 64, generator=generator))
    vector = nn.Parameter(torch.randn(16, generator=generator))
    return [
        ParameterGroup(name="matrices", parameters=[matrix], learning_rate=0.01, weight_decay=0.1),
        ParameterGroup(name="vectors", parameters=[vector], learning_rate=0.002, weight_decay=0.0),
    ]


def step(optimizer: torch.optim.Optimizer, number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


def weights(parts: list[ParameterGroup]) -> list[torch.Tensor]:
    return [parameter.detach().clone() for group in parts for parameter in group.parameters]


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("kind", KINDS)
def test_packed_state_resumes_bit_for_bit(kind: OptimizerName) -> None:
    whole = groups()
    optimizer = create_optimizer(whole, kind)
    for number in range(4):
        step(optimizer, number)
    at_four = weights(whole)
    tensors, scalars = pack_optimizer(optimizer)
    saved = {name: tensor.clone() for name, tensor in tensors.items()}
    for number in range(4, 8):
        step(optimizer, number)
    resumed = groups()
    with torch.no_grad():
        for group, value in zip(resumed, at_four, strict=True):
            group.parameters[0].copy_(value)
    fresh = create_optimizer(resumed, kind)
    unpack_optimizer(fresh, saved, scalars)
    for number in range(4, 8):
        step(fresh, number)
    assert all(torch.equal(one, other) for one, other in zip(weights(whole), weights(resumed), strict=True))
    assert not torch.equal(weights(resumed)[0], at_four[0])


@pytest.mark.parametrize(("kind", "most"), [("adamw", 9.0), ("adamw8bit", 2.3)])
def test_8_bit_moments_take_a_quarter_of_memory(kind: OptimizerName, most: float) -> None:
    parts = groups()
    optimizer = create_optimizer(parts, kind)
    step(optimizer, 0)
    tensors, _ = pack_optimizer(optimizer)
    held = sum(tensor.nbytes for tensor in tensors.values()) / sum(one.numel() for one in weights(parts))
    assert most - 2.3 < held < most


def test_group_with_own_learning_rate_is_named() -> None:
    parts = groups()
    rates = set_learning_rates(create_optimizer(parts), parts, 0.5)
    assert rates == {"learningRate": 0.005, "vectorsLearningRate": 0.001}
