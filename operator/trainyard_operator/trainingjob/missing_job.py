"""A training Job that the informer cache lacks: looked up before it counts as deleted, and its labels repaired."""

from __future__ import annotations

from dataclasses import replace

from trainyard_crds.constants import child_name
from trainyard_operator.reconcile.fields import labels, owned_by
from trainyard_operator.reconcile.plan import Need, Patch
from trainyard_operator.trainingjob.children.render import TRAIN_ROLE, owner_labels
from trainyard_operator.trainingjob.k8s_fields import is_being_deleted, job_finished
from trainyard_operator.trainingjob.model import Observed
from trainyard_operator.trainingjob.resources import trim_job


def with_training_job(observed: Observed) -> Observed | Need:
    """Return what was observed with its training Job, or the look-up of that where the cache lacks it.

    A Job whose labels were changed leaves the informer's selection, as a deleted one does. Its owner reference and its
    name show whose it is.
    """
    if observed.child is not None or "jobName" not in observed.status:
        return observed
    need = Need("jobs", child_name(observed.name, observed.uid))
    if need not in observed.answers:
        return need
    found = observed.answers[need]
    if found is None or not owned_by(found, observed.uid):
        return observed
    return replace(observed, child=trim_job(found))


def repaired_labels(observed: Observed) -> tuple[Patch, ...]:
    """Return the change that gives a training Job found by a look-up the labels by which the informer finds it."""
    child, looked_up = observed.child, Need("jobs", child_name(observed.name, observed.uid)) in observed.answers
    if child is None or not looked_up or job_finished(child) or is_being_deleted(child):
        return ()
    known = labels(child)
    changed = {key: value for key, value in owner_labels(observed.job, TRAIN_ROLE).items() if known.get(key) != value}
    return (Patch("jobs", child["metadata"]["name"], {"metadata": {"labels": changed}}),) if changed else ()
