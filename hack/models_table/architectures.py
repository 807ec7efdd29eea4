"""Tiny configurations of the architectures in the table, by their `model_type` in transformers."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

VOCABULARY = 320
POSITIONS = 64
"""Few, since a table of positions would be a large part of a tiny model."""

NAMES = (
    *("llama", "mistral", "ministral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next"),
    *("gemma", "gemma2", "gemma3_text", "phi", "phi3", "phimoe", "gpt2", "gpt_neo", "gpt_neox", "gptj", "gpt_bigcode"),
    *("gpt_oss", "opt", "bloom", "mpt", "falcon", "falcon_h1", "stablelm", "olmo", "olmo2", "olmo3", "olmoe"),
    *("cohere", "cohere2", "granite", "granitemoe", "granitemoehybrid", "glm", "glm4", "glm4_moe", "starcoder2"),
    *("smollm3", "deepseek_v2", "deepseek_v3", "mamba", "mamba2", "jamba", "bamba", "nemotron", "exaone4"),
    *("ernie4_5", "ernie4_5_moe", "hunyuan_v1_dense", "hunyuan_v1_moe", "minimax", "seed_oss", "arcee", "lfm2"),
    *("bert", "roberta"),
)
"""bert and roberta stand for the encoders, which transformers loads as causal language models too."""

_HIDDEN, _HEADS, _LAYERS = 64, 4, 2
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "pad_token_id": 2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim"), _HIDDEN),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"), 2 * _HIDDEN),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers"), _LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), _HEADS),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), _HEADS // 2),
    "head_dim": _HIDDEN // _HEADS,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), POSITIONS),
    # mixtures of experts
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"), _HIDDEN),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "n_shared_experts"), 1),
    # latent attention
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 32),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), 16),
    # state-space and linear-attention blocks: 2 x 64 values in 8 heads of 16
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads"), 8),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim"), 16),
    "mamba_d_ssm": 128,
    **dict.fromkeys(("mamba_d_state", "state_size"), 8),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size"), 16),
    "mamba_dt_rank": 4,
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 16),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 4),
}
"""Sizes under every name that an architecture may call them."""

_OTHER: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "deepseek_v2": {"head_dim": 16, "num_key_value_heads": _HEADS, "num_experts_per_tok": 2},
    "deepseek_v3": {"head_dim": 16, "num_key_value_heads": _HEADS},
    "ernie4_5_moe": {"moe_layer_end_index": _LAYERS - 1},
    "falcon": {"alibi": False},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 8},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8, "n_groups": 1},
    "ministral": {"head_dim": 16},
    "nemotron": {"num_key_value_heads": _HEADS // 2},
}
"""What differs for an architecture: sizes without a default, and kinds of layers."""


def make_config(name: str) -> PreTrainedConfig:
    """Return a tiny configuration of an architecture."""
    fields = AutoConfig.for_model(name).to_dict()
    sizes = {key: value for key, value in _SIZES.items() if fields.get(key) is not None}
    if kinds := fields.get("layer_types"):
        sizes["layer_types"] = _layer_types(kinds)
    config: PreTrainedConfig = AutoConfig.for_model(name, **sizes | _OTHER.get(name, {}))
    return config


def make_model(name: str) -> PreTrainedModel:
    """Return a tiny random model of an architecture, the same one at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(make_config(name))
    return model


def _layer_types(kinds: list[str]) -> list[str]:
    """Return one layer of each of two kinds, in the order in which they come."""
    different = list(dict.fromkeys(kinds))
    return (different * _LAYERS)[:_LAYERS]
