"""A held-out loss that is not finite."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.trainer import tiny
from tests.unit.trainer.tasks.llm.runs import config, train
from trainyard_trainer.data.row_labels import named_rows
from trainyard_trainer.errors import DataError
from trainyard_trainer.tasks.text.batches import BatchSettings, TextBatches
from trainyard_trainer.tasks.text.chat import Encoded
from trainyard_trainer.tasks.text.evaluate import mean_loss
from trainyard_trainer.tasks.text.token_rows import Origins, TokenRows

POISON = 299
"""The token whose embedding is no number."""


def batches(origins: Origins | None) -> TextBatches:
    """Four rows, two a batch; the third has the token."""
    rows = TokenRows.of([Encoded([10, 11, POISON if row == 2 else 12, 13], [True] * 4) for row in range(4)])
    settings = BatchSettings(batch_size=2, max_length=8, packing=False, pad_token=2, seed=0)
    return TextBatches(rows, range(4), settings, shuffle=False, origins=origins)


def poisoned_model() -> Any:
    model = tiny.make_model()
    with torch.no_grad():
        model.model.embed_tokens.weight[POISON] = float("nan")
    return model


def test_rows_of_non_finite_batch_are_named() -> None:
    origins = Origins(("held.jsonl",), np.zeros(4, np.int32), np.array([7, 8, 21, 22], np.int64))
    with pytest.raises(DataError, match=r"not a number in the batches of held\.jsonl, rows 21, 22\.") as caught:
        mean_loss(poisoned_model(), batches(origins), torch.device("cpu"))
    assert "Look at these rows" in caught.value.advice


def test_rows_of_unknown_origin_are_not_named() -> None:
    assert np.isnan(mean_loss(poisoned_model(), batches(None), torch.device("cpu")))


def test_run_ends_with_names_of_validation_rows(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainyard_trainer.tasks.text.evaluate.summed_loss", lambda *_: torch.tensor(float("inf")))
    ended = train(config(tmp_path, tiny_model, "run", "lora"))
    assert (ended.exit_code, ended.reason) == (65, "BadData")
    assert "rows.jsonl, rows " in ended.message
    assert "The evaluation loss is infinite or not a number" in ended.message


def test_first_rows_of_many_are_named_once() -> None:
    assert named_rows([("b", 2), ("a", 3), ("a", 1), ("a", 3)]) == "a, rows 1, 3; b, row 2"
    assert named_rows([("a", row) for row in range(50)]).endswith("38, 39 and 10 more")
