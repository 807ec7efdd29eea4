"""The metadata of a GGUF file: sizes and position encoding."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import gguf
import numpy as np
from gguf import GGUFWriter, LlamaFileType, RopeScalingType
from numpy.typing import NDArray

from trainyard_trainer.errors import ConfigurationError
from trainyard_trainer.tasks.text.export.gguf_tokenizer import check_tokenizer, write_tokenizer

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
"""transformers' model_type -> llama.cpp's architecture."""

_SCALINGS = {"linear": RopeScalingType.LINEAR, "yarn": RopeScalingType.YARN}
_ADVICE = "Leave gguf out of spec.exports."


def check_metadata(config: Mapping[str, Any], tokenizer: Any, name: str) -> None:
    """Refuse position encodings and tokenizers that a GGUF file cannot describe.

    Raises:
        ConfigurationError: The model has one.
    """
    kind = _rope(config).get("rope_type", "default")
    if kind not in {"default", "llama3", *_SCALINGS}:
        raise ConfigurationError(
            f"{name} scales its positions by '{kind}', which cannot be exported as gguf.",
            f"{_ADVICE} Known are default, llama3, {', '.join(_SCALINGS)}.",
        )
    check_tokenizer(tokenizer, config, name)


def write_metadata(
    writer: GGUFWriter, config: Mapping[str, Any], tokenizer: Any, *, name: str, file_type: LlamaFileType
) -> None:
    """Write every key of a model.

    Args:
        writer: The file.
        config: The model's config.json.
        tokenizer: Its tokenizer.
        name: The model's name in the file.
        file_type: The type of most matrices.
    """
    writer.add_type("model")
    writer.add_name(_without_effect(name))
    writer.add_file_type(int(file_type))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config.get("num_key_value_heads") or config["num_attention_heads"])
    writer.add_key_length(_head_size(config))
    writer.add_value_length(_head_size(config))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    _write_rope(writer, config)
    write_tokenizer(writer, tokenizer, config)


def rope_factors(config: Mapping[str, Any]) -> NDArray[np.float32] | None:
    """Return Llama 3.1's divisor of each frequency; None for other position encodings.

    Long wave lengths are stretched by `factor`, short ones kept, those between interpolated.
    """
    rope = _rope(config)
    if rope.get("rope_type") != "llama3":
        return None
    size, context = _head_size(config), rope["original_max_position_embeddings"]
    frequencies = 1.0 / (rope["rope_theta"] ** (np.arange(0, size, 2, dtype=np.float64) / size))
    waves = 2 * math.pi / frequencies
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    share = (context / waves - low) / (high - low)
    between = 1 / ((1 - share) / rope["factor"] + share)
    factors = np.where(waves < context / high, 1.0, np.where(waves > context / low, rope["factor"], between))
    return factors.astype(np.float32)


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the position encoding, as written by transformers 4 or 5."""
    rope = {"rope_theta": config.get("rope_theta", 10_000.0), **(config.get("rope_scaling") or {})}
    rope |= config.get("rope_parameters") or {}
    if "rope_type" not in rope and "type" in rope:
        rope["rope_type"] = rope["type"]
    return rope


def _write_rope(writer: GGUFWriter, config: Mapping[str, Any]) -> None:
    rope = _rope(config)
    writer.add_rope_dimension_count(_head_size(config))
    writer.add_rope_freq_base(rope["rope_theta"])
    kind = _SCALINGS.get(rope.get("rope_type", "default"))
    if kind is not None:
        writer.add_rope_scaling_type(kind)
        writer.add_rope_scaling_factor(rope["factor"])
        if "original_max_position_embeddings" in rope:
            writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


def _without_effect(name: str) -> str:
    """Return a name that llama.cpp shows only: by some words in it, it changes how it reads control tokens."""
    return re.sub(r"(?i)(phi|modern)-?(?=3|bert)", r"\1 ", name)


def _head_size(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
