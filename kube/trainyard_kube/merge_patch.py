"""JSON merge patches (RFC 7386)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def merge_patch(current: Mapping[str, Any], desired: Mapping[str, Any]) -> dict[str, Any]:
    """Return the smallest merge patch from `current` to `desired`, empty if there is no difference.

    Args:
        current: The object as it is.
        desired: The fields to set. None removes a field; fields that are absent here stay as they are.
    """
    patch: dict[str, Any] = {}
    for key, value in desired.items():
        known = current.get(key)
        if isinstance(value, Mapping) and isinstance(known, Mapping):
            inner = merge_patch(known, value)
            if inner:
                patch[key] = inner
        elif isinstance(value, Mapping):
            patch[key] = _without_nulls(value)
        elif known != value:
            patch[key] = value
    return patch


def _without_nulls(value: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: item for key, item in value.items() if item is not None}
    return {key: _without_nulls(item) if isinstance(item, Mapping) else item for key, item in kept.items()}
