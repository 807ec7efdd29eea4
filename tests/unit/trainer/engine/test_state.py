import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.trainer.toy import ToyData
from trainyard_trainer.engine.loss_accumulator import LossAccumulator
from trainyard_trainer.engine.master_weights import MasterWeights
from trainyard_trainer.engine.optimizer import clip_gradients, create_optimizer, set_learning_rates
from trainyard_trainer.engine.rng import RngState, capture_rng, preserved_state, restore_rng, seed_everything
from trainyard_trainer.engine.state import TrainingState, pack_state, read_state, write_state
from trainyard_trainer.engine.step_plan import Cursor
from trainyard_trainer.engine.task import ParameterGroup
from trainyard_trainer.errors import DataError

CPU = torch.device("cpu")


def draw() -> list[float]:
    return [float(torch.rand(1)), random.random(), random.gauss(0, 1), float(np.random.random())]


def test_generators_resume_where_captured() -> None:
    seed_everything(3)
    random.gauss(0, 1)  # Python keeps the second value of a pair
    state = capture_rng(CPU)
    expected = draw()
    restore_rng(RngState.from_parts(state.tensors(), state.scalars()), CPU)
    assert draw() == expected


def test_preserved_state_restores_generators_and_modes() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    model[1].eval()
    seed_everything(3)
    expected = draw()
    seed_everything(3)
    with preserved_state(model, CPU):
        draw()
        model.train()
    assert draw() == expected
    assert [module.training for module in model] == [True, False]


def two_groups() -> list[ParameterGroup]:
    torch.manual_seed(0)
    return [
        ParameterGroup(name=name, parameters=[nn.Parameter(torch.randn(3, 2))], learning_rate=rate, weight_decay=0.1)
        for name, rate in (("language", 0.1), ("vision", 0.01))
    ]


def make_step(groups: list[ParameterGroup], optimizer: torch.optim.Optimizer) -> None:
    for group in groups:
        torch.autograd.backward(group.parameters[0].square().sum())
    optimizer.step()
    optimizer.zero_grad()


def test_state_round_trips_bit_for_bit(tmp_path: Path) -> None:
    groups = two_groups()
    optimizer, window = create_optimizer(groups), LossAccumulator(CPU, ToyData())
    make_step(groups, optimizer)
    window.add(step=1, cursors=[Cursor()], losses=[torch.tensor(2.5)], loss_weight=5, grad_norm=torch.tensor(1.0))
    state = TrainingState(step=1, cursor=Cursor(2, 3), items=7, metrics={"loss": 0.1}, evaluated_step=1, best_value=0.1)
    packed = pack_state(
        state=state,
        optimizer=optimizer,
        masters=MasterWeights(groups),
        losses=window,
        rng=capture_rng(CPU),
        metrics_length=11,
    )
    write_state(tmp_path, *packed)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}

    copies = two_groups()
    for copy, group in zip(copies, groups, strict=True):
        copy.parameters[0].data.copy_(group.parameters[0])
    fresh, empty = create_optimizer(copies), LossAccumulator(CPU, ToyData())
    restored, _rng, length = read_state(tmp_path, optimizer=fresh, masters=MasterWeights(copies), losses=empty)
    assert (restored, length) == (state, 11)
    assert empty.take() == {"loss": 0.5, "gradNorm": 0.0}
    make_step(groups, optimizer)
    make_step(copies, fresh)
    assert all(torch.equal(a.parameters[0], b.parameters[0]) for a, b in zip(groups, copies, strict=True))


def test_state_of_an_older_trainer_is_read(tmp_path: Path) -> None:
    groups = two_groups()
    optimizer, losses, masters = create_optimizer(groups), LossAccumulator(CPU, ToyData()), MasterWeights(groups)
    state = TrainingState(step=1, items=7, best_value=0.1)
    tensors, document = pack_state(
        state=state, optimizer=optimizer, masters=masters, losses=losses, rng=capture_rng(CPU), metrics_length=11
    )
    assert (document["training"]["tokens"], document["training"]["best_loss"]) == (7, 0.1)
    del document["training"]["objective"]
    write_state(tmp_path, tensors, document)
    restored, _rng, _length = read_state(tmp_path, optimizer=optimizer, masters=masters, losses=losses)
    assert restored == state


def test_own_metrics_exclude_older_evaluation() -> None:
    metrics = {"loss": 1.0, "evalLoss": 2.0}
    state = TrainingState(step=4, metrics=metrics, evaluation={"evalLoss": 2.0}, evaluated_step=4)
    assert state.own_metrics() == metrics
    state.step = 5
    assert state.own_metrics() == {"loss": 1.0}


def test_different_learning_rates_are_named() -> None:
    groups = two_groups()
    optimizer = create_optimizer(groups)
    metrics = set_learning_rates(optimizer, groups, 0.5)
    assert metrics == {"learningRate": 0.05, "visionLearningRate": 0.005}
    assert [options["lr"] for options in optimizer.param_groups] == [0.05, 0.005]


@pytest.mark.parametrize(("max_norm", "scale"), [(1.0, 0.2), (10.0, 1.0), (0.0, 1.0)])
def test_gradients_are_clipped_and_0_disables_clipping(max_norm: float, scale: float) -> None:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    group = ParameterGroup(name="all", parameters=[parameter], learning_rate=1, weight_decay=0)
    assert float(clip_gradients([group], max_norm)) == 5.0
    assert torch.allclose(parameter.grad, scale * torch.tensor([3.0, 4.0]), rtol=1e-5)


@pytest.mark.parametrize(("loss", "norm"), [("nan", "1"), ("inf", "1"), ("1", "nan"), ("1", "inf")])
def test_first_non_finite_step_is_named(loss: str, norm: str) -> None:
    window = LossAccumulator(CPU, ToyData())
    add = partial(window.add, cursors=[Cursor()], loss_weight=1)
    for step, (loss_sum, grad_norm) in enumerate([("1", "1"), ("1", "1"), (loss, norm), ("1", "1"), (loss, norm)], 1):
        add(step=step, losses=[torch.tensor(float(loss_sum))], grad_norm=torch.tensor(float(grad_norm)))
        if step == 1:
            window.check_finite()
    with pytest.raises(DataError, match="in step 3"):
        window.take()


class TwoFiles(ToyData):
    """Micro-batch i holds rows 10 * i + 1 and + 2 of one file, and row 1 of another."""

    def origins(self, epoch: int, index: int) -> list[tuple[str, int]]:
        return [("a.jsonl", 10 * index + 2), ("a.jsonl", 10 * index + 1), ("b.jsonl", 1)]


@pytest.mark.parametrize(
    ("losses", "rows"),
    [
        (["1", "nan", "inf"], ("The loss became", "a.jsonl, rows 11, 12; b.jsonl, row 1")),
        (["1", "1", "-inf"], ("The loss became", "a.jsonl, rows 21, 22; b.jsonl, row 1")),
        (["1", "1", "1"], ("The gradient became", "a.jsonl, rows 1, 2, 11, 12, 21, 22; b.jsonl, row 1")),
    ],
)
def test_rows_of_first_non_finite_micro_batch_are_named(losses: list[str], rows: tuple[str, str]) -> None:
    window = LossAccumulator(CPU, TwoFiles())
    cursors = [Cursor(0, index) for index in range(3)]
    found = [torch.tensor(float(loss)) for loss in losses]
    window.add(step=7, cursors=cursors, losses=found, loss_weight=3, grad_norm=torch.tensor(float("nan")))
    with pytest.raises(DataError) as caught:
        window.check_finite()
    assert caught.value.message.startswith(rows[0])
    assert caught.value.message.endswith(f" {rows[1]}.")


def test_message_names_some_rows_and_counts_the_others() -> None:
    class Many(ToyData):
        def origins(self, epoch: int, index: int) -> list[tuple[str, int]]:
            return [("a.jsonl", row) for row in range(1, 101)]

    window = LossAccumulator(CPU, Many())
    nan = torch.tensor(float("nan"))
    window.add(step=1, cursors=[Cursor()], losses=[nan], loss_weight=1, grad_norm=nan)
    with pytest.raises(DataError, match=r"rows 1, 2, .*, 40 and 60 more\.$"):
        window.take()


def test_no_loss_without_loss_weight() -> None:
    window = LossAccumulator(CPU, ToyData())
    window.add(step=1, cursors=[Cursor()], losses=[torch.tensor(0.0)], loss_weight=0, grad_norm=torch.tensor(0.0))
    assert window.take() == {"gradNorm": 0.0}
