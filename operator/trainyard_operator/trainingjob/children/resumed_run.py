"""The run directory of the TrainingJob that spec.resumeFrom names."""

from __future__ import annotations

from trainyard_kube.paths import Object
from trainyard_operator.reconcile.plan import Need
from trainyard_operator.trainingjob.model import Observed
from trainyard_operator.trainingjob.resources import ResourceKind
from trainyard_operator.trainingjob.spec import InvalidSpecError, Spec


def resume_need(spec: Spec) -> Need | None:
    """Return the look-up of the TrainingJob to resume from; None where the spec names none."""
    name = spec.resume_from.training_job if spec.resume_from else None
    return None if name is None else Need(ResourceKind.TRAINING_JOBS, name)


def run_uri_of(job: Object | None) -> str | None:
    """Return the run directory of a TrainingJob, pvc://claim/path; None while it has none."""
    uri: str | None = ((job or {}).get("status") or {}).get("runUri")
    return uri


def with_known_run(observed: Observed, spec: Spec) -> Spec:
    """Return the spec with the run directory in place of the TrainingJob to resume from.

    Raises:
        InvalidSpecError: that TrainingJob has none.
    """
    need, chosen = resume_need(spec), spec.resume_from
    if need is None or chosen is None:
        return spec
    uri = run_uri_of(observed.answers.get(need))
    if uri is None:
        raise InvalidSpecError(f"spec.resumeFrom.trainingJob: {need.name} has no run.")
    return spec.model_copy(update={"resume_from": chosen.model_copy(update={"training_job": None, "run_uri": uri})})
