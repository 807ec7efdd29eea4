"""Pods of a Job, corrected by look-ups where the informer lags behind the Job controller."""

from __future__ import annotations

from collections.abc import Iterable

from trainyard_kube.paths import Object
from trainyard_operator.reconcile.plan import Need
from trainyard_operator.trainingjob.k8s_fields import by_age, job_finished, pod_ended
from trainyard_operator.trainingjob.model import Observed


def current_pods(observed: Observed, job: Object | None, pods: Iterable[Object]) -> list[Object] | Need:
    """Return a Job's pods, oldest first, or the pod to look up: one of a finished Job that seems to run.

    Args:
        observed: The TrainingJob, with the answers to look-ups.
        job: The Job; None while there is none.
        pods: The Job's pods as they were observed.
    """
    finished, current = job_finished(job), list[Object]()
    for pod in sorted(pods, key=by_age):
        if pod_ended(pod) or not finished:
            current.append(pod)
            continue
        need = Need("pods", pod["metadata"]["name"])
        if need not in observed.answers:
            return need
        found = observed.answers[need]
        if found is not None and found["metadata"]["uid"] == pod["metadata"]["uid"]:
            current.append(found)
    return current
