"""The merged model in plain transformers, without PEFT, against the process that trained it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.trainer import tiny
from tests.unit.trainer.tasks.llm.task_support import logits, run_context
from tests.unit.trainer.tasks.text.export.trained import save_family, trained
from trainyard_trainer.errors import ConfigurationError, StopRequested
from trainyard_trainer.tasks.llm.task import LlmTask
from trainyard_trainer.tasks.text.export.stored_weights import read_shards, weights_digest

FP32_TOLERANCE = 5e-5
"""Merging adds two matrices before the product instead of after it; logits are about 1 to 10."""


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_merged_model_gives_logits_of_trained_model(tmp_path: Path, family: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = save_family(tmp_path / "model", family)
    run = trained(tmp_path, model)
    notes = run.export(tmp_path / "out", format="merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert not hasattr(plain, "peft_config")
    assert torch.allclose(logits(plain), logits(run.loaded.model), atol=FP32_TOLERANCE, rtol=0)
    assert not torch.allclose(logits(plain), logits(AutoModelForCausalLM.from_pretrained(model)), atol=1e-2)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == tiny.MARKED_TEMPLATE
    assert notes.facts["logitDifference"]["maximum"] < FP32_TOLERANCE
    assert notes.facts["logitDifference"]["sameTopToken"] == 1.0
    assert notes.facts["baseModel"]["weights"] == weights_digest(model)
    assert notes.facts["mergedInto"] == "original"


@pytest.mark.parametrize("change", [{"useRslora": True}, {"modulesToSave": ["lm_head"]}, {"alpha": 3}])
def test_every_adapter_setting_is_merged(tmp_path: Path, tiny_model: Path, change: dict[str, Any]) -> None:
    run = trained(tmp_path, tiny_model, adapter={"rank": 8, **change})
    assert run.export(tmp_path / "out", format="merged").facts["logitDifference"]["maximum"] < FP32_TOLERANCE


def test_merged_model_has_files_of_base_model(tmp_path: Path) -> None:
    run = trained(tmp_path, save_family(tmp_path / "model", "llama"))
    run.export(tmp_path / "out", format="merged")
    before, after = read_shards(tmp_path / "model"), read_shards(tmp_path / "out")
    assert len(before) > 2
    assert [(one.path.name, one.names) for one in before] == [(one.path.name, one.names) for one in after]


def test_qlora_merged_into_dequantized_base_is_the_trained_model(tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    run = trained(tmp_path, tiny_model, method="qlora")
    original = run.export(tmp_path / "original", format="merged")
    dequantized = run.export(tmp_path / "dequantized", format="merged", base="dequantized")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "dequantized")
    assert torch.allclose(logits(plain), logits(run.loaded.model), atol=FP32_TOLERANCE, rtol=0)
    assert dequantized.facts["logitDifference"]["maximum"] < FP32_TOLERANCE
    # The base as downloaded is another one than was trained on: measured and said, not hidden.
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "original")
    measured = original.facts["logitDifference"]["maximum"]
    assert measured > 0.1
    assert f"{measured:.2g} at most" in (original.message or "")
    assert not torch.allclose(logits(other), logits(run.loaded.model), atol=0.1)
    assert "quantization_config" not in json.loads((tmp_path / "dequantized/config.json").read_text())


def test_checkpoint_is_exported_not_later_weights(tmp_path: Path, tiny_model: Path) -> None:
    from tests.unit.trainer.tasks.llm.task_support import train

    run = trained(tmp_path, tiny_model)
    wanted = logits(run.loaded.model)
    run.loaded.model.train()
    train(run.task, run.loaded, 2)
    assert run.export(tmp_path / "out", format="merged").facts["logitDifference"]["maximum"] < FP32_TOLERANCE
    assert torch.equal(logits(run.loaded.model), wanted)


def test_tied_head_is_refused_before_first_step(tmp_path: Path) -> None:
    model = save_family(tmp_path / "model", "llama", tie_word_embeddings=True)
    context = run_context(tmp_path, model, adapter={"targets": ["lm_head"]}, exports=[{"format": "merged"}])
    with pytest.raises(ConfigurationError, match=r"The adapter changes lm_head.weight, which the base model's files"):
        LlmTask().load(context)


def test_quantized_base_is_refused_before_rows_are_read(tmp_path: Path, tiny_model: Path) -> None:
    model = save_family(tmp_path / "model", "llama")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "bitsandbytes"}}))
    with pytest.raises(ConfigurationError, match="are stored quantised, so an adapter cannot be merged into them"):
        LlmTask().load(run_context(tmp_path, model, exports=[{"format": "merged"}]))


def test_stop_while_merging(tmp_path: Path, tiny_model: Path) -> None:
    run = trained(tmp_path, tiny_model)
    run.context.stop.request()
    with pytest.raises(StopRequested):
        run.export(tmp_path / "out", format="merged")
    assert not list((tmp_path / "out").iterdir())
