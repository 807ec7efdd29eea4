"""The GGUF file read by the gguf package and by transformers, tensor for tensor."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader

from tests.unit.trainer import tiny
from tests.unit.trainer.tasks.llm.task_support import logits, run_context
from tests.unit.trainer.tasks.text.export.llama_cpp import LlamaCpp
from tests.unit.trainer.tasks.text.export.trained import save_family, trained
from trainyard_trainer.errors import ConfigurationError
from trainyard_trainer.tasks.llm.task import LlmTask
from trainyard_trainer.tasks.text.export.gguf_file import read_gguf
from trainyard_trainer.tasks.text.export.gguf_metadata import rope_factors
from trainyard_trainer.tasks.text.export.stored_weights import read_shards

ROUNDING = {"f32": 0.0, "f16": 2e-3, "bf16": 1e-2, "q8_0": 2e-2}
"""Largest difference of a weight; tiny weights are below 1."""
LLAMA_CPP_ROUNDING = 2e-2
"""Largest difference of a logit in llama.cpp, which keeps keys and values in f16; tiny logits reach 3."""

LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128}


def tensors_of(directory: Path) -> dict[str, torch.Tensor]:
    return {name: tensor.float() for shard in read_shards(directory) for name, tensor in shard.tensors()}


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_file_holds_merged_model_tensor_for_tensor(tmp_path: Path, family: str) -> None:
    run = trained(tmp_path, save_family(tmp_path / "model", family))
    run.export(tmp_path / "gguf", format="gguf", type="f32")
    run.export(tmp_path / "merged", format="merged")
    config = json.loads((tmp_path / "model/config.json").read_text())
    merged, path = tensors_of(tmp_path / "merged"), tmp_path / "gguf/model-f32.gguf"
    found = dict(read_gguf(path, merged, config))
    assert len(GGUFReader(path).tensors) == len(merged)
    assert all(torch.equal(found[name], tensor) for name, tensor in merged.items())
    stored = {tensor.name: tensor for tensor in GGUFReader(path).tensors}["blk.0.attn_q.weight"]
    as_it_lies = torch.from_numpy(np.array(stored.data)).reshape(merged["model.layers.0.self_attn.q_proj.weight"].shape)
    # Rows of q are reordered for llama, and for llama only.
    assert torch.equal(as_it_lies, merged["model.layers.0.self_attn.q_proj.weight"]) is (family != "llama")


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_transformers_reads_same_model_from_file(tmp_path: Path, family: str) -> None:
    from transformers import AutoModelForCausalLM

    run = trained(tmp_path, save_family(tmp_path / "model", family))
    run.export(tmp_path / "gguf", format="gguf", type="f32")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "gguf", gguf_file="model-f32.gguf")
    assert torch.allclose(logits(theirs), logits(run.loaded.model), atol=5e-5, rtol=0)


@pytest.mark.parametrize("type_", ["f16", "bf16", "q8_0"])
def test_matrices_have_requested_type_and_vectors_f32(tmp_path: Path, tiny_model: Path, type_: str) -> None:
    run = trained(tmp_path, tiny_model, method="full")
    run.export(tmp_path / "gguf", format="gguf", type=type_)
    path = tmp_path / f"gguf/model-{type_}.gguf"
    kinds = {(len(tensor.shape), tensor.tensor_type) for tensor in GGUFReader(path).tensors}
    assert kinds == {(2, GGMLQuantizationType[type_.upper()]), (1, GGMLQuantizationType.F32)}
    wanted = tensors_of(run.weights)
    for name, tensor in read_gguf(path, wanted, json.loads((tiny_model / "config.json").read_text())):
        assert (tensor - wanted[name]).abs().max() <= ROUNDING[type_] * max(1.0, float(wanted[name].abs().max()))


def test_merge_into_other_base_is_reported(tmp_path: Path, tiny_model: Path) -> None:
    run = trained(tmp_path, tiny_model, method="qlora")
    assert "Merged into the original base model" in (run.export(tmp_path / "a", format="gguf").message or "")
    assert run.export(tmp_path / "b", format="gguf", base="dequantized").message is None
    merged = run.export(tmp_path / "c", format="merged", base="dequantized")
    run.export(tmp_path / "d", format="gguf", base="dequantized", type="f32")
    config = json.loads((tiny_model / "config.json").read_text())
    wanted = tensors_of(tmp_path / "c")
    found = dict(read_gguf(tmp_path / "d/model-f32.gguf", wanted, config))
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    assert merged.facts["mergedInto"] == "dequantized"


def test_file_describes_model_and_tokenizer(tmp_path: Path, tiny_model: Path) -> None:
    run = trained(tmp_path, tiny_model)
    notes = run.export(tmp_path / "gguf", format="gguf")
    fields = GGUFReader(tmp_path / "gguf/model-bf16.gguf").fields
    found = {name: field.contents() for name, field in fields.items()}
    tokenizer = tiny.make_tokenizer()
    wanted: dict[str, Any] = {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "llama.embedding_length": 128,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.context_length": 512,
        "llama.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.bos_token_id": tokenizer.bos_token_id,
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
        "tokenizer.chat_template": tiny.MARKED_TEMPLATE,
    }
    assert {name: found.get(name) for name in wanted} == wanted
    texts = found["tokenizer.ggml.tokens"]
    assert texts[: len(tokenizer)] == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    assert len(texts) == 346
    assert len(found["tokenizer.ggml.merges"]) > 0
    assert notes.facts["mergedInto"] == "original"


def test_unsupported_architecture_is_refused_before_rows_are_read(tmp_path: Path, tiny_model: Path) -> None:
    model = save_family(tmp_path / "model", "llama")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "model_type": "mamba"}))
    with pytest.raises(ConfigurationError, match="the architecture mamba, which cannot be exported as gguf") as caught:
        LlmTask().load(run_context(tmp_path, model, exports=[{"format": "gguf"}]))
    assert "llama, mistral, qwen2, qwen3" in caught.value.advice


def changed(directory: Path, file: str, **changes: Any) -> Path:
    """A tiny Llama whose file has other entries."""
    save_family(directory, "llama")
    path = directory / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return directory


@pytest.mark.parametrize(
    ("file", "changes", "sentence"),
    [
        (
            "config.json",
            {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1.0}},
            "scales its positions by 'longrope'",
        ),
        (
            "tokenizer.json",
            {
                "pre_tokenizer": {
                    "type": "Sequence",
                    "pretokenizers": [
                        {"type": "Digits", "individual_digits": False},
                        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
                    ],
                }
            },
            "it splits text in a way that llama.cpp has no name for",
        ),
        ("tokenizer_config.json", {"pad_token": "[PAD]"}, r"its token \[PAD\] has the number 346"),
    ],
)
def test_what_gguf_cannot_hold_is_refused_before_rows_are_read(
    tmp_path: Path, file: str, changes: dict[str, Any], sentence: str
) -> None:
    context = run_context(tmp_path, changed(tmp_path / "model", file, **changes), exports=[{"format": "gguf"}])
    with pytest.raises(ConfigurationError, match=sentence):
        LlmTask().load(context)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {}),
        ("qwen2", {}),
        ("qwen3", {}),
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"rope_parameters": LLAMA_3_ROPE}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}}),
        ("qwen2", {"rope_parameters": YARN}),
    ],
    ids=["llama", "qwen2", "qwen3", "tied", "llama3-rope", "linear-rope", "yarn"],
)
def test_llama_cpp_computes_what_the_trained_model_does(
    tmp_path: Path, llama_cpp: LlamaCpp, family: str, changes: dict[str, Any]
) -> None:
    run = trained(tmp_path, save_family(tmp_path / "model", family, **changes))
    run.export(tmp_path / "gguf", format="gguf", type="f32")
    chat = "<|begin|><|user|>what is the colour of\n\nan apple 123?<|end|><|assistant|>"
    tokens = tiny.make_tokenizer().encode(chat, add_special_tokens=False)
    assert llama_cpp.tokenize(tmp_path / "gguf/model-f32.gguf", [chat]) == [tokens]
    with torch.no_grad():
        wanted = run.loaded.model.eval()(input_ids=torch.tensor([tokens])).logits[0, -1]
    found = torch.tensor(llama_cpp.logits(tmp_path / "gguf/model-f32.gguf", tokens))
    assert torch.allclose(found, wanted, atol=LLAMA_CPP_ROUNDING, rtol=0)


def test_normalisation_that_llama_cpp_lacks_is_named_with_the_export(tmp_path: Path) -> None:
    run = trained(tmp_path, changed(tmp_path / "model", "tokenizer.json", normalizer={"type": "NFC"}))
    assert "does not bring texts to the Unicode form NFC" in (run.export(tmp_path / "a", format="gguf").message or "")


def test_llama_3_rope_factors_equal_transformers() -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = LlamaConfig(hidden_size=512, num_attention_heads=4, max_position_embeddings=131072, rope_parameters=rope)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1.0 / (500000.0 ** (torch.arange(0, 128, 2).float() / 128))
    factors = rope_factors({"hidden_size": 512, "num_attention_heads": 4, "rope_parameters": rope})
    assert factors is not None
    assert np.allclose(factors, (plain / scaled).numpy(), rtol=1e-5)
    assert (factors.min(), factors.max()) == (1.0, 8.0)
