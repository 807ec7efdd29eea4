"""Fields of batch Jobs and trainer pods."""

from __future__ import annotations

from trainyard_crds.constants import TRAINER_CONTAINER
from trainyard_kube.paths import Object
from trainyard_operator.reconcile.fields import holds

_ENDED_POD_PHASES = ("Succeeded", "Failed")


def job_finished(child: Object | None) -> bool:
    """Whether a batch Job came to its end; such a Job never starts a pod again."""
    return holds(child, "Complete") or holds(child, "Failed")


def job_suspended(child: Object) -> bool:
    """Whether a batch Job is asked not to run."""
    return bool(child["spec"].get("suspend", False))


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
