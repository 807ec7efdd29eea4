"""config.json and the headers of the weight files of a model in object storage, without the weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainyard_trainer.errors import NotFoundError
from trainyard_trainer.sources.remote_files import Remote, RemoteFile

MAX_HEADER_BYTES = 100_000_000
"""As the safetensors library allows."""
_FIRST_BYTES = 100_000
"""Size of the first request; most headers are shorter."""
_CONFIG = "config.json"
_CONFIG_LIMIT = 10_000_000


@dataclass(frozen=True)
class ModelHeaders:
    """Configuration and tensor shapes of a model."""

    config: bytes
    """config.json."""
    tensors: Mapping[str, tuple[int, ...]]
    """Shape of every tensor of its safetensors files by name."""


def read_bucket_headers(remote: Remote, folder: str) -> ModelHeaders:
    """Fetch config.json and the headers of the weight files of a folder by ranged reads.

    Args:
        remote: A bucket.
        folder: The folder of the model.

    Raises:
        NotFoundError: config.json or safetensors weights are missing, or unreadable.
        TrainerError: see `Remote`.
    """
    files = {file.key.removeprefix(f"{folder}/"): file for file in remote.list(folder)}
    weights = [file for name, file in files.items() if is_weights(name)]
    if _CONFIG not in files or not weights:
        missing = "*.safetensors files" if _CONFIG in files else _CONFIG
        raise NotFoundError(f"There is no {missing} in {remote.url(folder)}.", "Check model.source and s3.")
    config = files[_CONFIG]
    tensors: dict[str, tuple[int, ...]] = {}
    for file in weights:
        tensors |= _tensors(remote, file)
    return ModelHeaders(_read(remote, config, 0, min(config.bytes, _CONFIG_LIMIT)), tensors)


def is_weights(name: str) -> bool:
    """Whether a file holds weights; subfolders and consolidated* files repeat them."""
    return name.endswith(".safetensors") and "/" not in name and not name.startswith("consolidated")


def _tensors(remote: Remote, file: RemoteFile) -> dict[str, tuple[int, ...]]:
    start = _read(remote, file, 0, min(file.bytes, _FIRST_BYTES))
    try:
        (length,) = struct.unpack("<Q", start[:8])
        end = 8 + length
        if length > MAX_HEADER_BYTES or end > file.bytes:
            raise ValueError("it is not a safetensors file")
        rest = _read(remote, file, len(start), end) if end > len(start) else b""
        return parse_header((start + rest)[8:end])
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotFoundError(
            f"The header of {remote.url(file.key)} cannot be read: {error}.", "Copy the complete model again."
        ) from error


def parse_header(header: bytes) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor by name, from the JSON header of a safetensors file."""
    entries: dict[str, Any] = json.loads(header)
    return {name: tuple(entry["shape"]) for name, entry in entries.items() if name != "__metadata__"}


def _read(remote: Remote, file: RemoteFile, start: int, stop: int) -> bytes:
    return b"".join(remote.read(file, start, stop)) if stop > start else b""
