"""Whether the claim of the run directory exists before the training Job does.

The claim is created before the Job. If the Job is refused, the claim remains, and the queue must not count it against a
ResourceQuota a second time: `status.runUri` records that it exists.
"""

from __future__ import annotations

from trainyard_operator.reconcile.plan import Need
from trainyard_operator.trainingjob.children.runconfig import run_claim
from trainyard_operator.trainingjob.model import Observed


def claim_need(observed: Observed) -> Need | None:
    """Return the look-up of the created claim; None if the answer is known or no claim is created."""
    known = observed.child is not None or "runUri" in observed.status or observed.spec.storage.claim_name
    need = _need(observed)
    return None if known or need in observed.answers else need


def has_claim(observed: Observed) -> bool:
    """Return whether what is created before the training Job exists although that does not."""
    refused_job = observed.refusal is not None and observed.refusal.child == "Job"
    is_found = observed.spec.storage.claim_name is None and observed.answers.get(_need(observed)) is not None
    return refused_job or is_found


def _need(observed: Observed) -> Need:
    return Need("persistentvolumeclaims", run_claim(observed.job, observed.spec))
