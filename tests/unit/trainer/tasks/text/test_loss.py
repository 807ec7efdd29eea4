"""Optimised losses against the plain path: one row at a time, all logits, labels by hand."""

import pytest
import torch

from tests.unit.trainer import tiny
from tests.unit.trainer.tasks.text.reference_loss import plain_loss, random_rows
from trainyard_trainer.tasks.text.batches import BatchSettings, TextBatches, collate
from trainyard_trainer.tasks.text.chat import Encoded
from trainyard_trainer.tasks.text.evaluate import mean_loss
from trainyard_trainer.tasks.text.loss import selected_logits, summed_loss
from trainyard_trainer.tasks.text.packing_isolation import isolates_packed_rows
from trainyard_trainer.tasks.text.token_rows import TokenRows

FAMILIES = ("llama", "qwen2", "qwen3")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("packed", [True, False])
def test_packed_loss_and_gradients_equal_separate_rows(family: str, packed: bool) -> None:
    model = tiny.make_model(family)
    rows = random_rows(7)
    sequences = [[3, 0, 5], [1, 6], [2, 4]] if packed else [[row] for row in range(7)]
    batch = collate(rows, sequences, packed=packed, pad_token=2)
    assert (batch.attention_mask is None) == packed
    loss = summed_loss(model, batch)
    torch.autograd.backward(loss)
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    wanted = sum((plain_loss(model, rows, row) for row in range(7)), torch.tensor(0.0))
    torch.autograd.backward(wanted)
    assert torch.allclose(loss, wanted, atol=1e-5, rtol=1e-5)
    for name, parameter in model.named_parameters():
        assert torch.allclose(gradients[name], parameter.grad, atol=1e-4, rtol=1e-4), name


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_logits_equal_logits_of_single_row(family: str) -> None:
    model = tiny.make_model(family)
    rows = TokenRows.of(Encoded(list(range(10 * n + 6, 10 * n + 13)), [True] * 7) for n in range(3))
    with torch.no_grad():
        packed = selected_logits(model, collate(rows, [[0, 1, 2]], packed=True, pad_token=2)).reshape(3, 6, -1)
        for row in range(3):
            alone = model(input_ids=torch.tensor(rows.tokens[7 * row : 7 * row + 7], dtype=torch.int64)[None]).logits[0]
            assert (packed[row] - alone[:-1]).abs().max() < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_architectures_isolate_packed_rows(family: str) -> None:
    model = tiny.make_model(family)
    assert isolates_packed_rows(model, 346, torch.device("cpu"))


def test_architecture_that_mixes_rows_is_detected() -> None:
    model = tiny.make_model()
    layer = model.get_submodule("model.layers.0")
    hook = layer.register_forward_hook(lambda _module, _inputs, output: output + 1e-2 * output.cumsum(1))
    assert not isolates_packed_rows(model, 346, torch.device("cpu"))
    hook.remove()
    assert isolates_packed_rows(model, 346, torch.device("cpu"))


def test_labels_do_not_cross_row_boundaries() -> None:
    rows = TokenRows.of([Encoded([10, 11, 12], [True] * 3), Encoded([20, 21], [True] * 2)])
    batch = collate(rows, [[0, 1], [1]], packed=True, pad_token=2)
    assert batch.input_ids.tolist() == [[10, 11, 12, 20, 21], [20, 21, 2, 2, 2]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1], [0, 1, 0, 1, 2]]
    assert list(zip(batch.loss_positions.tolist(), batch.labels.tolist(), strict=True)) == [
        (0, 11),
        (1, 12),
        (3, 21),
        (5, 21),
    ]
    assert (batch.num_tokens, batch.loss_weight) == (7, 4)


def test_mean_loss_of_packed_rows_is_mean_over_tokens() -> None:
    model = tiny.make_model()
    rows = random_rows(20)
    settings = BatchSettings(batch_size=2, max_length=32, packing=True, pad_token=2, seed=0)
    batches = TextBatches(rows, range(20), settings, shuffle=False)
    with torch.no_grad():
        total = sum(float(plain_loss(model, rows, row)) for row in range(20))
    tokens = sum(int(rows.loss[rows.starts[row] + 1 : rows.starts[row + 1]].sum()) for row in range(20))
    model.train()
    assert mean_loss(model, batches, torch.device("cpu")) == pytest.approx(total / tokens, rel=1e-5)
    assert model.training


def test_head_computes_selected_positions_only() -> None:
    model = tiny.make_model()
    seen = []
    hook = model.lm_head.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape))
    batch = collate(random_rows(4), [[0, 1], [2, 3]], packed=True, pad_token=2)
    summed_loss(model, batch)
    hook.remove()
    assert seen == [(1, batch.loss_weight, 346)]
    assert batch.loss_weight < batch.num_tokens
