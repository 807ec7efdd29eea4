"""Reading of Kueue's Workload (kueue.x-k8s.io/v1beta2), which holds Kueue's decisions about a Job."""

from __future__ import annotations

from typing import Any

from trainyard_crds.common import GROUP

Object = dict[str, Any]
WORKLOAD_JOB_LABEL = "kueue.x-k8s.io/job-uid"
"""The UID of its Job."""
HELD_ANNOTATION = f"{GROUP}/held"
"""Marks a Workload that the operator deactivated and may activate again."""
_FAILED_TO_START = "FailedToStart"

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""Label by which Kueue knows the LocalQueue of an object."""


def is_active(workload: Object) -> bool:
    """Return whether Kueue may admit a Workload."""
    return bool(workload["spec"].get("active", True))


def is_held(workload: Object) -> bool:
    """Return whether the operator deactivated a Workload."""
    return HELD_ANNOTATION in (workload["metadata"].get("annotations") or {})


def is_finished(workload: Object) -> bool:
    """Return whether a Workload finished with its Job; False if Kueue ended it because it cannot start the Job."""
    found = _finished(workload)
    return found is not None and found["reason"] != _FAILED_TO_START


def start_failure(workload: Object) -> str | None:
    """Return Kueue's message for a Job that it will never start; None otherwise."""
    found = _finished(workload)
    return found.get("message", "") if found is not None and found["reason"] == _FAILED_TO_START else None


def _finished(workload: Object) -> Object | None:
    conditions = (workload.get("status") or {}).get("conditions") or []
    return next((one for one in conditions if one["type"] == "Finished" and one["status"] == "True"), None)
