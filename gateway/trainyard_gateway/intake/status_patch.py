"""Computes the merge patch from the status to the reported fields; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainyard_kube.merge_patch import merge_patch


def status_patch(current: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON merge patch (RFC 7386) of `status`; empty if there is nothing to write.

    Args:
        current: The status fields owned by the gateway.
        wanted: The reported fields; an omitted field stays unchanged. In `summary`, None removes a text.

    Returns:
        The differences only; empty if only `progress.updatedAt` differs.
    """
    desired = {part: value for part, value in wanted.items() if value or part in current}
    for part, value in desired.items():
        if isinstance(value, Mapping) and part != "summary":
            desired[part] = {**dict.fromkeys(current.get(part, {})), **value}
    patch = merge_patch(current, desired)
    return {} if patch == {"progress": {"updatedAt": wanted["progress"].get("updatedAt")}} else patch
