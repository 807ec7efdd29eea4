"""Fields of batch Jobs and trainer pods."""

from __future__ import annotations

from trainyard_crds.constants import TRAINER_CONTAINER
from trainyard_kube.paths import Object
from trainyard_operator.reconcile.fields import holds

ENDED_POD_PHASES = ("Succeeded", "Failed")
"""Phases of a pod whose containers all ended."""


def job_finished(child: Object | None) -> bool:
    """Return whether a batch Job is complete or failed; such a Job never starts a pod again."""
    return holds(child, "Complete") or holds(child, "Failed")


def job_suspended(child: Object) -> bool:
    """Return whether a batch Job's spec suspends it."""
    return bool(child["spec"].get("suspend", False))


def is_busy(child: Object | None) -> bool:
    """Return whether the Job controller counts an active or terminating pod of a Job."""
    status = (child or {}).get("status") or {}
    return bool(status.get("active") or status.get("terminating"))


def is_being_deleted(obj: Object) -> bool:
    """Return whether an object is being deleted."""
    return "deletionTimestamp" in obj["metadata"]


def is_gone(pod: Object) -> bool:
    """Return whether a pod was deleted, so that this is its last observed state."""
    return bool(pod.get("gone", False))


def pod_phase(pod: Object) -> str:
    """Return the phase of a pod; empty when it has none yet."""
    return str((pod.get("status") or {}).get("phase", ""))


def pod_ended(pod: Object) -> bool:
    """Return whether all containers of a pod ended, so that it holds no GPU."""
    return is_gone(pod) or pod_phase(pod) in ENDED_POD_PHASES


def container_state(pod: Object) -> Object:
    """Return the state of the trainer's container (waiting, running, terminated); empty before the kubelet set it."""
    for status in pod.get("status", {}).get("containerStatuses") or []:
        if status["name"] == TRAINER_CONTAINER:
            state: Object = status.get("state") or {}
            return state
    return {}


def is_running(pod: Object) -> bool:
    """Return whether the trainer's container runs."""
    return "running" in container_state(pod) and not pod_ended(pod)


def terminated(pod: Object) -> Object:
    """Return the terminated state of the trainer's container; empty while it has not ended."""
    state: Object = container_state(pod).get("terminated") or {}
    return state


def other_running_containers(pod: Object) -> tuple[str, ...]:
    """Return the containers beside the trainer's that have not ended; native sidecars are init containers."""
    states = pod.get("status", {}).get("containerStatuses") or []
    others = [entry for entry in states if entry["name"] != TRAINER_CONTAINER]
    return tuple(entry["name"] for entry in others if "terminated" not in (entry.get("state") or {}))


def by_age(pod: Object) -> tuple[str, str]:
    """Sort key that puts the oldest pod first."""
    return pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]
