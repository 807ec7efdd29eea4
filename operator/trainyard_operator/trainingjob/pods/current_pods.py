"""Pods of a Job, corrected by look-ups where the informer lags behind the Job controller."""

from __future__ import annotations

from collections.abc import Iterable

from trainyard_kube.paths import Object
from trainyard_operator.reconcile.plan import Need
from trainyard_operator.trainingjob.k8s_fields import (
    ENDED_POD_PHASES,
    by_age,
    is_being_deleted,
    is_gone,
    job_finished,
    pod_ended,
    pod_phase,
    terminated,
)
from trainyard_operator.trainingjob.model import Observed


def current_pods(observed: Observed, job: Object | None, pods: Iterable[Object]) -> list[Object] | Need:
    """Return a Job's pods, oldest first, or the pod to look up.

    Looked up are pods of a finished Job that seem to run, and pods that vanished while they ran and were not being
    deleted: a pod whose labels changed leaves the informer's selection, and is there all the same.

    Args:
        observed: The TrainingJob, with the answers to look-ups.
        job: The Job; None while there is none.
        pods: The Job's pods as they were observed.
    """
    finished, current = job_finished(job), list[Object]()
    for pod in sorted(pods, key=by_age):
        if not _is_doubtful(pod, finished):
            current.append(pod)
            continue
        need = Need("pods", pod["metadata"]["name"])
        if need not in observed.answers:
            return need
        found = observed.answers[need]
        if found is not None and found["metadata"]["uid"] == pod["metadata"]["uid"]:
            current.append(found)
        elif is_gone(pod):
            current.append(pod)
    return current


def _is_doubtful(pod: Object, finished: bool) -> bool:
    if is_gone(pod):
        return not (is_being_deleted(pod) or terminated(pod) or pod_phase(pod) in ENDED_POD_PHASES)
    return finished and not pod_ended(pod)
