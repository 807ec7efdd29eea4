"""The numbers that decide a model's memory, from config.json and the headers of its weight files."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from trainyard_trainer.errors import NotFoundError
from trainyard_trainer.sources.safetensors_headers import MAX_HEADER_BYTES, is_weights, parse_header

_SIZES = ("hidden_size", "num_attention_heads", "intermediate_size", "num_hidden_layers", "vocab_size")
"""What a known architecture has in config.json."""
_EXPERTS = ".experts."
"""In the names of the tensors of a mixture's experts."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A decoder-only language model."""

    hidden: int
    intermediate: int
    layers: int
    queries: int
    """Heads times their width."""
    keys: int
    """Heads of keys, of which there may be fewer, times their width."""
    vocabulary: int
    gated: bool
    """Whether the feed-forward part has a gate (SwiGLU and the like)."""
    normed_heads: bool
    """Whether queries and keys have norms of their own."""
    tensors: Mapping[str, tuple[int, ...]]
    """Shape of every stored tensor by name."""

    @property
    def parameters(self) -> int:
        """Values of all tensors."""
        return sum(prod(shape) for shape in self.tensors.values())

    @property
    def late_embedding(self) -> int:
        """Values of the input embedding where it has a gradient only after all layers; 0 where the head shares it."""
        if not any("lm_head" in name for name in self.tensors):
            return 0
        return sum(
            prod(shape) for name, shape in self.tensors.items() if _is_vocabulary(name) and "lm_head" not in name
        )

    def linear(self) -> dict[str, tuple[int, int]]:
        """Return (outputs, inputs) of the blocks' linear layers by module name: the targets of adapters and 4 bits.

        Experts are not among them: transformers loads all of a layer as one tensor.
        """
        return {
            name.removesuffix(".weight"): (shape[0], shape[1])
            for name, shape in self.tensors.items()
            if len(shape) == 2 and name.endswith(".weight") and not _is_vocabulary(name) and _EXPERTS not in name
        }

    @property
    def experts(self) -> int:
        """Values of the experts' matrices."""
        return sum(prod(shape) for name, shape in self.tensors.items() if _EXPERTS in name and len(shape) > 1)


def read_shape(directory: Path, name: str) -> ModelShape:
    """Read the shape of the model in a directory.

    Args:
        directory: With config.json and *.safetensors.
        name: The model's name in messages.

    Raises:
        NotFoundError: One of them is missing or unreadable.
    """
    with _translated(name):
        config = (directory / "config.json").read_bytes()
        tensors: dict[str, tuple[int, ...]] = {}
        for path in sorted(path for path in directory.iterdir() if is_weights(path.name)):
            tensors |= _header(path)
        if not tensors:
            raise NotFoundError(f"The model {name} has no *.safetensors files.", "Copy the complete model.")
        return shape_of(config, tensors, name)


def shape_of(config: bytes, tensors: Mapping[str, tuple[int, ...]], name: str) -> ModelShape:
    """Return the shape of a model whose weights are elsewhere.

    Args:
        config: Its config.json.
        tensors: Shape of every stored tensor by name.
        name: The model's name in messages.

    Raises:
        NotFoundError: config.json is unreadable or lacks values.
    """
    with _translated(name):
        values = json.loads(config)
        values = values.get("text_config") or values
        _check_known(values, name)
        return _shape(values, tensors)


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise NotFoundError(
            f"The memory of {name} cannot be predicted: config.json or the header of a *.safetensors file lacks values"
            f" ({type(error).__name__}: {error}).",
            "Copy the complete model again.",
        ) from error


def _check_known(config: Mapping[str, Any], name: str) -> None:
    """Refuse an architecture whose config.json has other names for its sizes."""
    missing = [key for key in _SIZES if key not in config]
    if missing and config.get("model_type"):
        raise NotFoundError(
            f"The memory of {name} cannot be predicted: the plan does not know the architecture "
            f"{config['model_type']} (config.json has no {', '.join(missing)}).",
            "Train it without a prediction; the plan knows decoder-only language models with these values.",
        )


def _header(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the tensors in a safetensors header: 8 bytes of length, then JSON."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"{path.name} is no safetensors file")
        return parse_header(file.read(length))


def _shape(config: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]]) -> ModelShape:
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    width = int(config.get("head_dim") or hidden // heads)
    names = tuple(tensors)
    return ModelShape(
        hidden=hidden,
        intermediate=int(config["intermediate_size"]),
        layers=int(config["num_hidden_layers"]),
        queries=heads * width,
        keys=int(config.get("num_key_value_heads") or heads) * width,
        vocabulary=int(config["vocab_size"]),
        gated=any("gate" in name for name in names),
        normed_heads=any("q_norm" in name for name in names),
        tensors=tensors,
    )


def _is_vocabulary(name: str) -> bool:
    return any(part in name for part in ("embed", "lm_head", "wte", "wpe"))
