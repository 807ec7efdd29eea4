"""Shapes of the tensors of safetensors files, from their headers alone."""

from __future__ import annotations

import json
import struct
from pathlib import Path

Shapes = dict[str, tuple[int, ...]]
_LENGTH_BYTES = 8
_LARGEST_HEADER = 100_000_000
"""Bytes; the limit of the safetensors library."""


class DamagedFileError(ValueError):
    """A safetensors file cannot be read; the text is a sentence."""


def file_shapes(path: Path) -> Shapes:
    """Return the shape of every tensor of a file.

    Raises:
        DamagedFileError: the file is no complete safetensors file.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_LENGTH_BYTES)
        length = struct.unpack("<Q", start)[0] if len(start) == _LENGTH_BYTES else _LARGEST_HEADER + 1
        if length > min(_LARGEST_HEADER, size - _LENGTH_BYTES):
            raise DamagedFileError(f"{path.name} is truncated or no safetensors file.")
        try:
            header = json.loads(file.read(length))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            end = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
            shapes = {name: tuple(int(size) for size in entry["shape"]) for name, entry in entries.items()}
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise DamagedFileError(f"The header of {path.name} cannot be read.") from error
    if size != _LENGTH_BYTES + length + end:
        raise DamagedFileError(
            f"{path.name} has {size} bytes instead of {_LENGTH_BYTES + length + end}: it is truncated."
        )
    return shapes


def model_shapes(directory: Path) -> Shapes:
    """Return the shape of every tensor of a model's directory.

    Raises:
        DamagedFileError: a file is no complete safetensors file.
        OSError: a file cannot be read.
    """
    shapes: Shapes = {}
    for path in sorted(directory.glob("*.safetensors")):
        shapes |= file_shapes(path)
    return shapes
