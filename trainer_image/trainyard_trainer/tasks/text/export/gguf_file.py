"""Writes a GGUF file with the gguf package, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, LlamaFileType
from gguf.quants import dequantize, quant_shape_to_byte_shape, quantize
from numpy.typing import NDArray
from torch import Tensor

from trainyard_crds.exports import GgufType
from trainyard_trainer.errors import ConfigurationError
from trainyard_trainer.tasks.text.export.gguf_metadata import (
    ARCHITECTURES,
    check_metadata,
    rope_factors,
    write_metadata,
)
from trainyard_trainer.tasks.text.export.stored_weights import Shard, read_config
from trainyard_trainer.tasks.text.models.tokenizer import load_tokenizer

_TYPES = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
_PERMUTED = ("q_proj", "k_proj")
_COMPUTED = "rotary_emb.inv_freq"
_ROPE_FACTORS = "rope_freqs.weight"

Array = NDArray[Any]


@dataclass(frozen=True)
class _Entry:
    """One tensor of the file."""

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape on disk; in bytes for types that numpy lacks."""
        whole = (GGMLQuantizationType.F32, GGMLQuantizationType.F16)
        return self.shape if self.type in whole else quant_shape_to_byte_shape(self.shape, self.type)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Numpy's type on disk."""
        kinds = {GGMLQuantizationType.F32: np.float32, GGMLQuantizationType.F16: np.float16}
        return np.dtype(kinds.get(self.type, np.uint8))


def check_supported(directory: Path, name: str) -> None:
    """Check before the first step that a model can be written.

    Args:
        directory: The model.
        name: Its name in messages.

    Raises:
        ConfigurationError: Its architecture, position encoding or tokenizer is not supported.
        NotFoundError: It has no tokenizer.
    """
    config = read_config(directory)
    if config.get("model_type") not in ARCHITECTURES:
        raise ConfigurationError(
            f"{name} is of the architecture {config.get('model_type')}, which cannot be exported as gguf.",
            f"Leave gguf out of spec.exports, or use a model of one of these: {', '.join(ARCHITECTURES)}.",
        )
    check_metadata(config, load_tokenizer(directory, name), name)


def write_file(
    shards: Iterable[tuple[Shard, Iterator[tuple[str, Tensor]]]],
    shapes: Mapping[str, tuple[int, ...]],
    model: Path,
    path: Path,
    *,
    tokenizer: Any,
    name: str,
    type_: GgufType,
    poll: Callable[[], None],
) -> None:
    """Write a model; at most one tensor of it is in memory.

    Args:
        shards: Its files with their tensors.
        shapes: The shape of every tensor.
        model: Directory with its config.
        path: The file to write.
        tokenizer: Its tokenizer.
        name: The model's name in the file.
        type_: How matrices are stored; vectors are f32.
        poll: Called between tensors; may raise.
    """
    config = read_config(model)
    architecture = ARCHITECTURES[config["model_type"]]
    kind, file_type = _TYPES[type_]
    entries = _entries(shapes, config, kind)
    writer = GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    try:
        write_metadata(writer, config, tokenizer, name=name, file_type=file_type)
        factors = rope_factors(config)
        if factors is not None:
            entries = {_ROPE_FACTORS: _Entry(_ROPE_FACTORS, factors.shape, GGMLQuantizationType.F32), **entries}
        for entry in entries.values():
            size = int(np.prod(entry.stored_shape)) * entry.dtype.itemsize
            writer.add_tensor_info(entry.name, entry.stored_shape, entry.dtype, size, raw_dtype=entry.type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors)
        for _shard, tensors in shards:
            for hf_name, tensor in tensors:
                poll()
                if hf_name in entries:
                    array = _permuted(hf_name, _array(tensor), config)
                    writer.write_tensor_data(quantize(np.ascontiguousarray(array), entries[hf_name].type))
    finally:
        writer.close()


def read_gguf(path: Path, names: Iterable[str], config: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Yield a file's tensors, fp32, with the names and layout of transformers."""
    stored = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    for name in names:
        if not name.endswith(_COMPUTED):
            tensor = stored[_gguf_name(name, config)]
            array = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            yield name, torch.from_numpy(np.ascontiguousarray(_permuted(name, array, config, back=True)))


def _entries(
    shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any], kind: GGMLQuantizationType
) -> dict[str, _Entry]:
    return {
        name: _Entry(_gguf_name(name, config), shape, _stored_type(shape, kind))
        for name, shape in shapes.items()
        if not name.endswith(_COMPUTED)
    }


def _stored_type(shape: tuple[int, ...], kind: GGMLQuantizationType) -> GGMLQuantizationType:
    """Vectors are f32; rows that do not divide into blocks of 32 are f16, as llama.cpp's own converter does it."""
    if len(shape) < 2:
        return GGMLQuantizationType.F32
    if kind is GGMLQuantizationType.Q8_0 and shape[-1] % 32:
        return GGMLQuantizationType.F16
    return kind


def _gguf_name(name: str, config: Mapping[str, Any]) -> str:
    names = gguf.get_tensor_name_map(ARCHITECTURES[config["model_type"]], config["num_hidden_layers"])
    found: str | None = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise ConfigurationError(
            f"GGUF has no place for the tensor {name} of this architecture.", "Leave gguf out of spec.exports."
        )
    return found


def _array(tensor: Tensor) -> Array:
    """fp32, because numpy has no bf16."""
    array: Array = tensor.detach().float().numpy()
    return array


def _permuted(name: str, array: Array, config: Mapping[str, Any], *, back: bool = False) -> Array:
    """Reorder rows of q and k for llama.cpp, which rotates neighbours; transformers rotates halves of a head."""
    if ARCHITECTURES[config["model_type"]] is not gguf.MODEL_ARCH.LLAMA or not name.split(".")[-2].endswith(_PERMUTED):
        return array
    heads = config["num_attention_heads"]
    if "k_proj" in name:
        heads = config.get("num_key_value_heads") or heads
    halves = (heads, array.shape[0] // heads // 2, 2) if back else (heads, 2, array.shape[0] // heads // 2)
    return array.reshape(*halves, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
