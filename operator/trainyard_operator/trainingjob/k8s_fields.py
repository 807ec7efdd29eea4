"""Reading Kubernetes objects: times, conditions, containers."""

from __future__ import annotations

from datetime import UTC, datetime

from trainyard_crds.constants import TRAINER_CONTAINER
from trainyard_operator.trainingjob.model import Object

_ENDED_POD_PHASES = ("Succeeded", "Failed")


def parse_time(text: str) -> datetime:
    """The instant an API timestamp names.

    Raises:
        ValueError: it is no RFC 3339 time.
    """
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def format_time(instant: datetime) -> str:
    """An API timestamp: UTC, whole seconds."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_between(start: str, end: str) -> float:
    """Seconds from one API timestamp to another, at least 0."""
    return max(0.0, (parse_time(end) - parse_time(start)).total_seconds())


def condition(obj: Object | None, kind: str) -> Object | None:
    """The status condition of that type."""
    conditions = ((obj or {}).get("status") or {}).get("conditions") or []
    return next((entry for entry in conditions if entry["type"] == kind), None)


def holds(obj: Object | None, kind: str) -> bool:
    """Whether the status condition of that type is True."""
    found = condition(obj, kind)
    return found is not None and found["status"] == "True"


def job_finished(child: Object | None) -> bool:
    """Whether a batch Job came to its end; such a Job never starts a pod again."""
    return holds(child, "Complete") or holds(child, "Failed")


def job_suspended(child: Object) -> bool:
    """Whether a batch Job is asked not to run."""
    return bool(child["spec"].get("suspend", False))


def owned_by(obj: Object, uid: str) -> bool:
    """Whether an object's controller has that UID."""
    owners = obj["metadata"].get("ownerReferences") or []
    return any(entry.get("controller") and entry["uid"] == uid for entry in owners)


def is_gone(pod: Object) -> bool:
    """Whether a pod has been deleted, and this is what was last seen of it."""
    return bool(pod.get("gone", False))


def pod_ended(pod: Object) -> bool:
    """Whether all containers of a pod are over, so that it holds no GPU."""
    return is_gone(pod) or pod.get("status", {}).get("phase") in _ENDED_POD_PHASES


def container_state(pod: Object) -> Object:
    """State of the trainer's container: waiting, running or terminated; empty while the kubelet has said nothing."""
    for status in pod.get("status", {}).get("containerStatuses") or []:
        if status["name"] == TRAINER_CONTAINER:
            state: Object = status.get("state") or {}
            return state
    return {}


def is_running(pod: Object) -> bool:
    """Whether the trainer's container runs."""
    return "running" in container_state(pod) and not pod_ended(pod)
