"""Training Jobs that another client suspended, not the operator."""

from __future__ import annotations

from trainyard_crds.constants import FIELD_MANAGER
from trainyard_crds.trainingjob_status import Phase
from trainyard_operator.reconcile.fields import condition
from trainyard_operator.trainingjob.k8s_fields import job_finished, job_suspended
from trainyard_operator.trainingjob.kueue_adapter import is_kueue_managed
from trainyard_operator.trainingjob.model import Observed
from trainyard_operator.trainingjob.resources import SUSPENDED_BY

SUSPENDED_BY_OTHER = "SuspendedByOther"
"""Reason of a job whose Job another client suspended."""
_BEFORE = (Phase.STARTING, Phase.RUNNING, Phase.SUSPENDING)
"""Phases until a suspension by another client is over. The operator suspends a Job in some of them, too: as itself."""


def foreign_suspender(observed: Observed) -> str | None:
    """Return the field manager that suspended the Job of a job that runs by its spec; None where no other client did.

    Kueue suspends its Jobs itself. What another client suspended stays so until `spec.suspend` was set, and the
    operator suspended the job in its turn.
    """
    child = observed.child
    if child is None or job_finished(child) or not job_suspended(child) or is_kueue_managed(child):
        return None
    manager = child["metadata"].get(SUSPENDED_BY)
    if not manager or manager == FIELD_MANAGER or observed.spec.suspend or observed.spec.stop is not None:
        return None
    running = condition(observed.job, "Running")
    is_reported = running is not None and running["reason"] == SUSPENDED_BY_OTHER
    return str(manager) if is_reported or observed.status.get("phase") in _BEFORE else None
