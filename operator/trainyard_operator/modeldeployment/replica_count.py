"""How many replicas there are to be. Pure."""

from __future__ import annotations

from trainyard_operator.admission.decision import Admission
from trainyard_operator.modeldeployment.model import Observed


def wanted_replicas(observed: Observed) -> int:
    """Return how many replicas the user wants now."""
    return 0 if observed.spec.stopped else observed.spec.replicas


def running_replicas(observed: Observed) -> int:
    """Return how many replicas the Deployment has been given."""
    return int(((observed.deployment or {}).get("spec") or {}).get("replicas") or 0)


def granted_replicas(observed: Observed, admission: Admission) -> int:
    """Return how many replicas may run: those that do, and one more when the queue admits it.

    Args:
        observed: The ModelDeployment and its children.
        admission: Decision about one more replica than there are.
    """
    wanted, running = wanted_replicas(observed), running_replicas(observed)
    if not observed.spec.resources.gpus or wanted <= running:
        return wanted
    return running + 1 if admission.admitted else running
