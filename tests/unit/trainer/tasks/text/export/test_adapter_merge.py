"""Merging into tied embeddings and transposed layers, against the trained model and PEFT's own merge."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.trainer import tiny
from tests.unit.trainer.tasks.llm.task_support import logits, run_context
from tests.unit.trainer.tasks.text.export.trained import Trained, trained
from tests.unit.trainer.tasks.text.tied_models import save_tied
from trainyard_trainer.errors import ConfigurationError
from trainyard_trainer.tasks.llm.task import LlmTask

TOLERANCE = 5e-5


def merged_by_peft(run: Trained, model: Path) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), run.weights).merge_and_unload()


@pytest.mark.parametrize(("family", "whole"), [("llama", "embed_tokens"), ("llama", "lm_head"), ("gpt2", "wte")])
def test_a_tied_head_trained_whole_resumes_loads_in_peft_and_merges(tmp_path: Path, family: str, whole: str) -> None:
    from transformers import AutoModelForCausalLM

    model = save_tied(tmp_path / "model", family)
    exports = [{"format": "merged"}]
    run = trained(tmp_path, model, adapter={"rank": 4, "modulesToSave": [whole]}, exports=exports)
    notes = run.export(tmp_path / "out", format="merged")
    wanted = logits(run.loaded.model)
    assert torch.allclose(logits(merged_by_peft(run, model)), wanted, atol=TOLERANCE, rtol=0)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.allclose(logits(merged), wanted, atol=TOLERANCE, rtol=0)
    assert "Warning" not in (notes.message or "")
    resumed = run.task.load(run.context)
    run.task.load_weights(resumed, run.weights)
    assert torch.equal(logits(resumed.model), wanted)


def test_a_tied_head_trained_whole_is_written_to_gguf(tmp_path: Path) -> None:
    from gguf import GGUFReader

    model = save_tied(tmp_path / "model", "llama")
    run = trained(tmp_path, model, adapter={"rank": 4, "modulesToSave": ["lm_head"]})
    run.export(tmp_path / "out", format="gguf", type="f32")
    (path,) = (tmp_path / "out").glob("*.gguf")
    written = {tensor.name: tensor.data for tensor in GGUFReader(path).tensors}
    assert "output.weight" not in written
    embedding = run.task.weights(run.loaded)["base_model.model.model.embed_tokens.weight"].detach()
    assert torch.equal(torch.from_numpy(written["token_embd.weight"].copy()), embedding)


@pytest.mark.parametrize(("method", "base"), [("lora", None), ("qlora", "dequantized")])
def test_transposed_layers_merge_also_where_they_are_square(tmp_path: Path, method: str, base: str | None) -> None:
    from transformers import AutoModelForCausalLM

    model = save_tied(tmp_path / "model", "gpt2")
    exports = [{"format": "merged", **({"base": base} if base else {})}]
    run = trained(tmp_path, model, method=method, exports=exports)
    assert any("attn.c_proj" in name for name in run.task.weights(run.loaded))  # 64 x 64
    notes = run.export(tmp_path / "out", **exports[0])
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.allclose(logits(merged), logits(run.loaded.model), atol=TOLERANCE, rtol=0)
    assert notes.facts["logitDifference"]["maximum"] < TOLERANCE


def test_qlora_of_transposed_layers_merges_into_the_original(tmp_path: Path) -> None:
    run = trained(tmp_path, save_tied(tmp_path / "model", "gpt2"), method="qlora")
    assert run.export(tmp_path / "out", format="merged").facts["logitDifference"]["relative"] < 0.5


def test_a_large_difference_is_a_warning(tmp_path: Path) -> None:
    model = save_tied(tmp_path / "model", "gpt2")
    run = trained(tmp_path, model)
    save_tied(model, "gpt2", seed=1)  # the base model's files are replaced by others while the run goes on
    notes = run.export(tmp_path / "out", format="merged")
    assert notes.facts["logitDifference"]["relative"] > 0.5
    assert (notes.message or "").startswith("Warning: this export differs much from the trained model: use the adapter")


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "fp8"])
def test_full_training_of_quantized_weights_is_refused_before_rows_are_read(tmp_path: Path, method: str) -> None:
    model = save_tied(tmp_path / "model", "llama")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": method}}))
    with pytest.raises(ConfigurationError, match="are stored quantised and cannot be trained with method: full"):
        LlmTask().load(run_context(tmp_path, model, method="full"))


def test_experts_that_cannot_be_merged_are_refused_with_the_layers_that_can(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, DeepseekV3Config

    sizes: dict[str, Any] = {
        "vocab_size": 346,
        "hidden_size": 64,
        "intermediate_size": 64,
        "moe_intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "q_lora_rank": 32,
        "kv_lora_rank": 32,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 16,
        "v_head_dim": 16,
        "head_dim": 16,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "max_position_embeddings": 128,
    }
    AutoModelForCausalLM.from_config(DeepseekV3Config(**sizes)).save_pretrained(tmp_path / "model")
    tiny.make_tokenizer().save_pretrained(tmp_path / "model")
    changes: dict[str, Any] = {"exports": [{"format": "merged"}], "llm": {"maxLength": 128, "packing": False}}
    with pytest.raises(ConfigurationError, match=r"changes model\.layers\.1\.mlp\.experts\.weight") as refused:
        LlmTask().load(run_context(tmp_path, tmp_path / "model", **changes))
    assert "spec.adapter.targets" in refused.value.advice
    targets = refused.value.advice.rpartition(": ")[2].rstrip(".").split(", ")
    named = run_context(tmp_path, tmp_path / "model", adapter={"rank": 4, "targets": targets}, **changes)
    LlmTask().load(named)
