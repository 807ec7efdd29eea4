"""Architectures without SDPA (soft caps, attention sinks) train with eager attention, and packing keeps rows apart."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma2Config, GptOssConfig, MambaConfig, PretrainedConfig

from tests.unit.trainer import tiny
from tests.unit.trainer.tasks.llm.runs import config, train
from tests.unit.trainer.tasks.text.reference_loss import plain_loss, random_rows
from trainyard_crds.report import Outcome
from trainyard_trainer.tasks.text.batches import collate
from trainyard_trainer.tasks.text.loss import summed_loss
from trainyard_trainer.tasks.text.models.attention import has_eager_attention
from trainyard_trainer.tasks.text.models.loading import load_base_model

SIZES: dict[str, Any] = {
    **tiny.SMALL,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "initializer_range": 0.1,
    "sliding_window": 5,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "gemma2": Gemma2Config(**SIZES, attn_logit_softcapping=5.0, final_logit_softcapping=3.0),
    "gpt_oss": GptOssConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2),
    "mamba": MambaConfig(vocab_size=346, hidden_size=64, num_hidden_layers=2, state_size=8),
}


def test_packed_rows_have_the_loss_of_separate_ones(tmp_path: Path) -> None:
    directory = tiny.save_random(CONFIGS["gemma2"], tmp_path / "model")
    model = load_base_model(directory, "tiny", precision="fp32", device=torch.device("cpu"))
    assert has_eager_attention(model)
    rows = random_rows(7)
    packed = summed_loss(model, collate(rows, [[3, 0, 5], [1, 6], [2, 4]], packed=True, pad_token=2))
    separate = sum(plain_loss(model, rows, row).item() for row in range(7))
    assert packed.item() == pytest.approx(separate, rel=1e-5)


@pytest.mark.parametrize(("name", "packing"), [("gemma2", True), ("gpt_oss", False)])
def test_a_run_trains_and_says_what_its_attention_costs(tmp_path: Path, name: str, packing: bool) -> None:
    run = config(tmp_path, tiny.save_random(CONFIGS[name], tmp_path / "model"), "run", "lora", packing)
    assert train(run).outcome is Outcome.FINISHED
    lines = [json.loads(line) for line in Path(run.run_directory, "log.jsonl").read_text().splitlines()]
    assert [line["type"] for line in lines].count("EagerAttention") == 1


def test_packing_is_refused_where_rows_would_see_each_other(tmp_path: Path) -> None:
    ended = train(config(tmp_path, tiny.save_random(CONFIGS["gpt_oss"], tmp_path / "model"), "run", "lora"))
    assert ended.exit_code == 64
    assert "packing: false" in (ended.advice or "")


def test_a_recurrent_model_is_not_said_to_have_eager_attention(tmp_path: Path) -> None:
    directory = tiny.save_random(CONFIGS["mamba"], tmp_path / "model")
    assert not has_eager_attention(load_base_model(directory, "tiny", precision="fp32", device=torch.device("cpu")))
