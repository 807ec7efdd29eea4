"""The smallest merge patch that brings the gateway's share of a status to what was reported: pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def status_patch(current: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON merge patch (RFC 7386) of `status`; empty when there is nothing to write.

    Args:
        current: The gateway's parts of the status as they stand.
        wanted: The parts as reported; a part that is not there stays as it is. In `summary`, None clears a text.

    Returns:
        Only what differs. A new `progress.updatedAt` alone is no difference: it is not worth a write.
    """
    patch: dict[str, Any] = {}
    for part, value in wanted.items():
        if isinstance(value, Mapping):
            change = _difference(current.get(part, {}), value, clear=part != "summary")
            if change:
                patch[part] = change
        elif value != current.get(part, []):
            patch[part] = value
    return {} if patch == {"progress": {"updatedAt": wanted["progress"].get("updatedAt")}} else patch


def _difference(current: Mapping[str, Any], wanted: Mapping[str, Any], *, clear: bool) -> dict[str, Any]:
    changed = {key: value for key, value in wanted.items() if value != current.get(key)}
    gone = [key for key in current if key not in wanted] if clear else []
    return changed | dict.fromkeys(gone)
