"""A Job that another client suspended: reported, and left suspended. Otherwise two clients would undo each other."""

from __future__ import annotations

from trainyard_crds.trainingjob_status import Phase
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policy_context import PolicyContext
from trainyard_operator.trainingjob.suspender import SUSPENDED_BY_OTHER, foreign_suspender


def follow_foreign_suspension(context: PolicyContext) -> Decision | None:
    """Report a job whose Job another client suspended; None for others."""
    manager = foreign_suspender(context.observed)
    if manager is None or context.child is None:
        return None
    name = context.child["metadata"]["name"]
    state = "The job holds no GPU." if context.is_idle else "The job saves a checkpoint and frees its GPUs."
    text = (
        f"{state} Its Job {name} was suspended by {manager}, not by this TrainingJob. To continue, set "
        "spec.suspend to true, wait for Suspended, and set it to false; or let that client resume the Job."
    )
    phase = Phase.SUSPENDED if context.is_idle else Phase.SUSPENDING
    return Decision(phase=phase, reason=SUSPENDED_BY_OTHER, message=text)
