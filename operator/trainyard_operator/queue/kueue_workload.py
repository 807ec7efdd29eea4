"""Kueue's Workload (kueue.x-k8s.io/v1beta2), the object in which it keeps what it decided about a Job."""

from __future__ import annotations

from typing import Any

from trainyard_crds.common import GROUP

Object = dict[str, Any]
WORKLOAD_JOB_LABEL = "kueue.x-k8s.io/job-uid"
"""The UID of its Job."""
HELD_ANNOTATION = f"{GROUP}/held"
"""That it was deactivated for the TrainingJob's own sake, and may be activated for it."""
_GAVE_UP = "FailedToStart"


def is_active(workload: Object) -> bool:
    """Whether a Workload may wait and run."""
    return bool(workload["spec"].get("active", True))


def is_held(workload: Object) -> bool:
    """Whether a Workload was deactivated for the TrainingJob's own sake."""
    return HELD_ANNOTATION in (workload["metadata"].get("annotations") or {})


def is_over(workload: Object) -> bool:
    """Whether a Workload ended with its Job, so that the Job tells all; one that Kueue gave up says more."""
    found = _finished(workload)
    return found is not None and found["reason"] != _GAVE_UP


def last_words(workload: Object) -> str | None:
    """Why Kueue will never start the Job of a Workload, as it says it; None where it did not give up."""
    found = _finished(workload)
    return found.get("message", "") if found is not None and found["reason"] == _GAVE_UP else None


def _finished(workload: Object) -> Object | None:
    conditions = (workload.get("status") or {}).get("conditions") or []
    return next((one for one in conditions if one["type"] == "Finished" and one["status"] == "True"), None)
