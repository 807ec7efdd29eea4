"""The tensors of a base model as stored: by file, one at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from trainyard_trainer.checkpoint.files import sha256_of
from trainyard_trainer.errors import ConfigurationError

_SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Shard:
    """One safetensors file and the names of its tensors, in the order of the file."""

    path: Path
    names: tuple[str, ...]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield its tensors on the CPU, read one at a time."""
        with safe_open(self.path, framework="pt") as file:
            for name in self.names:
                yield name, file.get_tensor(name)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor; reads the file's header only."""
        with safe_open(self.path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in self.names}


def read_shards(directory: Path) -> list[Shard]:
    """Return the weight files of a model, sorted by name."""
    single = directory / _SINGLE
    if single.is_file():
        names = [_SINGLE]
    else:
        index = json.loads((directory / INDEX).read_text(encoding="utf-8"))
        names = sorted(set(index["weight_map"].values()))
    return [_shard(directory / name) for name in names]


def _shard(path: Path) -> Shard:
    with safe_open(path, framework="pt") as file:
        return Shard(path, tuple(file.keys()))


def read_config(directory: Path) -> dict[str, Any]:
    """Read config.json of a model."""
    config: dict[str, Any] = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return config


def is_quantized(directory: Path) -> bool:
    """Whether a model's weights are stored quantised, by bitsandbytes or any other method."""
    config = read_config(directory)
    return any(config.get(field) for field in ("quantization_config", "compression_config"))


def check_plain_weights(directory: Path, name: str) -> None:
    """Refuse base models with quantised weights: an adapter cannot be added to those.

    Raises:
        ConfigurationError: They are quantised.
    """
    if is_quantized(directory):
        raise ConfigurationError(
            f"The weights of {name} are stored quantised, so an adapter cannot be merged into them.",
            "Export the adapter only (spec.exports: [{format: adapter}]), or train on the model it was quantised from.",
        )


def weights_digest(directory: Path) -> str:
    """Return the `sha256:` digest over the names and digests of a model's weight files."""
    lines = "".join(f"{sha256_of(shard.path)}  {shard.path.name}\n" for shard in read_shards(directory))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
