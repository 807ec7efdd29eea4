"""Which run a TrainingJob is: the annotation that survives a backup, and the UID that names the run directory.

A restored TrainingJob has a new UID and no status. The annotation, which backups and `kubectl get -o yaml` keep, names
the run by the job's name, the UID it began with, and a digest of the spec. A copy under another name or with another
spec is another run.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from trainyard_crds.constants import RUN_ANNOTATION, child_name
from trainyard_crds.trainingjob import TrainingJob
from trainyard_crds.trainingjob_status import Phase
from trainyard_kube.paths import Object
from trainyard_operator.reconcile.plan import Patch, Plan
from trainyard_operator.trainingjob.model import Observed
from trainyard_operator.trainingjob.resources import ResourceKind
from trainyard_operator.trainingjob.spec import Spec

READING, WAITING_FOR_CLAIM = "Restoring", "WaitingForClaim"
RESTORING = (READING, WAITING_FOR_CLAIM)
"""Reasons of a restored job while it is unknown what its run directory holds."""
_DIGEST_DIGITS = 16


def run_uid(job: Object, spec: Spec) -> str:
    """Return the UID that names the run directory and the generated claim: that of the job whose run this is."""
    own = str(job["metadata"]["uid"])
    known = _annotation(job)
    if known.get("uid", own) == own or known.get("name") != job["metadata"]["name"]:
        return own
    return str(known["uid"]) if known.get("spec") == spec_digest(spec) else own


def run_name(job: Object, spec: Spec) -> str:
    """Return the name of the run directory and the generated claim."""
    return child_name(job["metadata"]["name"], run_uid(job, spec))


def is_restored(observed: Observed) -> bool:
    """Return whether the TrainingJob was created again from a backup of one that had a run."""
    return run_uid(observed.job, observed.spec) != observed.uid


def is_restoring(observed: Observed) -> bool:
    """Return whether it is unknown yet what the run directory of a restored TrainingJob holds."""
    return observed.child is None and "runUri" not in observed.status and is_restored(observed)


def had_failed(observed: Observed) -> bool:
    """Return whether a restored run had failed."""
    return _annotation(observed.job).get("failed") is True


def with_run_annotation(observed: Observed, planned: Plan) -> Plan:
    """Return the plan with the annotation of the run, once there is nothing else to do.

    A write of its own: a status write under the same resource version would conflict.
    """
    begun = observed.child is not None or "runUri" in observed.status
    if planned != Plan(requeue_after=planned.requeue_after) or not begun or observed.is_being_deleted:
        return planned
    wanted = _wanted(observed)
    if _annotation(observed.job) == wanted:
        return planned
    annotations = {RUN_ANNOTATION: json.dumps(wanted, separators=(",", ":"))}
    patch = Patch(ResourceKind.TRAINING_JOBS, observed.name, {"metadata": {"annotations": annotations}})
    return Plan(patches=(patch,), requeue_after=planned.requeue_after)


def spec_digest(spec: Spec) -> str:
    """Return a digest of what a spec requests of a run: without the fields that may change, and without defaults.

    Defaults are left out because a newer CRD may have more of them.
    """
    document = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    kept = {name: value for name, value in document.items() if name not in TrainingJob.kind_info.mutable}
    text = json.dumps(_without_empty(kept), sort_keys=True)
    return sha256(text.encode()).hexdigest()[:_DIGEST_DIGITS]


def _wanted(observed: Observed) -> dict[str, Any]:
    wanted = {
        "name": observed.name,
        "uid": run_uid(observed.job, observed.spec),
        "spec": spec_digest(observed.spec),
    }
    return wanted | ({"failed": True} if observed.status.get("phase") == Phase.FAILED else {})


def _annotation(job: Object) -> dict[str, Any]:
    text = (job["metadata"].get("annotations") or {}).get(RUN_ANNOTATION)
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _without_empty(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    pruned = {key: _without_empty(entry) for key, entry in value.items()}
    return {key: entry for key, entry in pruned.items() if entry not in ({}, None)}
