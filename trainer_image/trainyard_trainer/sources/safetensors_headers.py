"""What a model in object storage says of itself: config.json and the heads of its weight files; no weights."""

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
"""Most heads are shorter, so that one request is enough for a file."""
_CONFIG = "config.json"
_CONFIG_LIMIT = 10_000_000


@dataclass(frozen=True)
class ModelHeads:
    """What a model says of itself without its weights."""

    config: bytes
    """config.json."""
    tensors: Mapping[str, tuple[int, ...]]
    """Shape of every tensor of its safetensors files by name."""


def read_object_heads(remote: Remote, folder: str) -> ModelHeads:
    """Fetch config.json and the heads of the weight files of a folder, by ranged reads.

    Args:
        remote: A bucket.
        folder: Of the model.

    Raises:
        NotFoundError: config.json or safetensors weights are missing, or unreadable.
        TrainerError: see `Remote`.
    """
    files = {file.key.removeprefix(f"{folder}/"): file for file in remote.list(folder)}
    weights = [file for name, file in files.items() if _is_weights(name)]
    if _CONFIG not in files or not weights:
        missing = "*.safetensors files" if _CONFIG in files else _CONFIG
        raise NotFoundError(f"There is no {missing} in {remote.url(folder)}.", "Check model.source and s3.")
    config = files[_CONFIG]
    tensors: dict[str, tuple[int, ...]] = {}
    for file in weights:
        tensors |= _tensors(remote, file)
    return ModelHeads(_read(remote, config, 0, min(config.bytes, _CONFIG_LIMIT)), tensors)


def _is_weights(name: str) -> bool:
    """The same weights once more are in folders below, or called consolidated."""
    return name.endswith(".safetensors") and "/" not in name and not name.startswith("consolidated")


def _tensors(remote: Remote, file: RemoteFile) -> dict[str, tuple[int, ...]]:
    start = _read(remote, file, 0, min(file.bytes, _FIRST_BYTES))
    try:
        (length,) = struct.unpack("<Q", start[:8])
        end = 8 + length
        if length > MAX_HEADER_BYTES or end > file.bytes:
            raise ValueError("it is no safetensors file")
        rest = _read(remote, file, len(start), end) if end > len(start) else b""
        return parse_header((start + rest)[8:end])
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotFoundError(
            f"The head of {remote.url(file.key)} cannot be read: {error}.", "Copy the complete model again."
        ) from error


def parse_header(header: bytes) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor by name, from the JSON header of a safetensors file."""
    entries: dict[str, Any] = json.loads(header)
    return {name: tuple(entry["shape"]) for name, entry in entries.items() if name != "__metadata__"}


def _read(remote: Remote, file: RemoteFile, start: int, stop: int) -> bytes:
    return b"".join(remote.read(file, start, stop)) if stop > start else b""
