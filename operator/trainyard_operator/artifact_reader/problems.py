"""Why an artifact reader does not run, from its pod. Pure."""

from __future__ import annotations

from trainyard_kube.paths import Object

_CREATING = ("ContainerCreating", "PodInitializing")


def problem_of(pod: Object, claim: str) -> str | None:
    """Return what keeps the reader of a claim from running, a sentence; None while it runs or is starting."""
    status = pod.get("status") or {}
    for entry in status.get("conditions") or []:
        if entry["type"] == "PodScheduled" and entry["status"] == "False":
            return f"The files of claim {claim} cannot be read yet: {entry.get('message', 'its reader has no node')}"
    for entry in status.get("containerStatuses") or []:
        waiting = (entry.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason")
        if reason and reason not in _CREATING:
            return f"The files of claim {claim} cannot be read yet: {reason}: {waiting.get('message', '')}"
    return None


def has_ended(pod: Object) -> bool:
    """Return whether a reader has ended or is being deleted."""
    phase = (pod.get("status") or {}).get("phase")
    return phase in ("Succeeded", "Failed") or "deletionTimestamp" in pod["metadata"]
