"""The smallest merge patch that brings the gateway's share of a status to what was reported: pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainyard_kube.merge_patch import merge_patch


def status_patch(current: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON merge patch (RFC 7386) of `status`; empty when there is nothing to write.

    Args:
        current: The gateway's parts of the status as they stand.
        wanted: The parts as reported; a part that is not there stays as it is. In `summary`, None clears a text.

    Returns:
        Only what differs. A new `progress.updatedAt` alone is no difference: it is not worth a write.
    """
    desired = {part: value for part, value in wanted.items() if value or part in current}
    for part, value in desired.items():
        if isinstance(value, Mapping) and part != "summary":
            desired[part] = {**dict.fromkeys(current.get(part, {})), **value}
    patch = merge_patch(current, desired)
    return {} if patch == {"progress": {"updatedAt": wanted["progress"].get("updatedAt")}} else patch
