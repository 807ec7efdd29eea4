"""A start that comes to nothing: the job gives back its GPUs and is tried again later, from its old place.

That is for pods without a node, which others can help by ending, or would get on without. What a bound pod waits for
(its image, a Secret, a volume) is its own affair: it keeps its GPUs until spec.startDeadlineSeconds.
"""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from trainyard_crds.constants import child_name
from trainyard_crds.trainingjob_status import Phase
from trainyard_kube.paths import Object
from trainyard_operator.queue import reasons
from trainyard_operator.queue.backoff import backoff
from trainyard_operator.reconcile.fields import condition, format_time, owned_by, parse_time
from trainyard_operator.trainingjob.k8s_fields import job_suspended, pod_ended
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policies.deadlines import failed_seconds, start_seconds
from trainyard_operator.trainingjob.policies.pending_reason import is_restarting, no_pod, pod_waits_for
from trainyard_operator.trainingjob.policy_context import Case

_REASON = "NotPlaced"
_MESSAGE_LIMIT = 1000


def give_back(case: Case) -> Decision | None:
    """Count a start whose pods got no node in time, then suspend its Job; None where there is nothing to give back.

    The count is written first: a kill in between neither loses it nor counts a start twice, and the queue knows of the
    delay before it sees that the job waits.
    """
    if case.child is None:
        return _withdraw(case)
    if _is_counted(case):
        return _give_back(case)
    patience, found = case.admission.start_seconds, None if case.admission.preempted else _unplaced(case)
    if patience is None or found is None or found.seconds < patience:
        return None
    tried = failed_seconds(case) + found.seconds
    if tried >= case.spec.start_deadline_seconds:
        return None  # spec.startDeadlineSeconds ends it
    return _decision(_failed(case, found.cause, int(tried)), suspend=None)


def _withdraw(case: Case) -> Decision | None:
    """Give up the turn of a job whose Job the API server has refused for the whole time."""
    before = _failed_starts(case)
    if before and parse_time(before["notBefore"]) > case.now:
        return Decision(phase=None) if case.admission.admitted else None  # the queue has yet to take its turn back
    refusal, patience, waited = case.observed.refusal, case.admission.start_seconds, start_seconds(case)
    if refusal is None or refusal.final or patience is None or waited is None or waited < patience:
        return None
    tried = failed_seconds(case) + waited
    if tried >= case.spec.start_deadline_seconds:
        return None
    failed = _failed(case, refusal.message, int(tried))
    waits = reasons.backing_off(parse_time(failed["notBefore"]), failed["message"])
    return Decision(phase=Phase.QUEUED, reason=waits.word, message=waits.sentence, failed_starts=failed)


def seconds_left(case: Case) -> float | None:
    """Seconds until a job gives back its GPUs; None where nothing tells that it will."""
    patience, found = case.admission.start_seconds, None if case.child is None else _unplaced(case)
    return None if patience is None or found is None else max(0.0, patience - found.seconds)


def _is_counted(case: Case) -> bool:
    running = condition(case.observed.job, "Running")
    counted = running is not None and running["reason"] == _REASON
    return counted and case.observed.status.get("phase") == Phase.SUSPENDING


def _give_back(case: Case) -> Decision | None:
    """Suspend a Job whose start was counted, unless its pods got their nodes after all; wait for their end."""
    assert case.child is not None
    over = case.idle if job_suspended(case.child) else _unplaced(case) is None
    return None if over else _decision(_failed_starts(case), suspend=True)


def _failed(case: Case, cause: str, tried: int) -> Object:
    """The entry in `status.queue` with one more start that came to nothing."""
    count = int(_failed_starts(case).get("count", 0)) + 1
    return {
        "count": count,
        "seconds": tried,
        "message": f"{cause[:_MESSAGE_LIMIT].rstrip('.')}.",
        "notBefore": format_time(case.now + timedelta(seconds=backoff(count))),
    }


def _decision(failed: Object, *, suspend: bool | None) -> Decision:
    again = parse_time(failed["notBefore"])
    text = (
        f"{failed['message']} The job gives back its GPUs, keeps its place and is tried again at {again:%H:%M:%S} UTC."
    )
    again_after = None if suspend else 0.0
    return Decision(
        phase=Phase.SUSPENDING,
        reason=_REASON,
        message=text,
        suspend=suspend,
        failed_starts=failed,
        requeue_after=again_after,
    )


def _failed_starts(case: Case) -> Object:
    found: Object = (case.observed.status.get("queue") or {}).get("failedStarts") or {}
    return found


class _Unplaced(NamedTuple):
    """Seconds for which a job has lacked a node for one of its pods, and why, in a sentence."""

    seconds: float
    cause: str


def _unplaced(case: Case) -> _Unplaced | None:
    """What a job lacks; None where every pod has its node, and between two attempts.

    Of a pod that is not even there nobody knows since when: there the start counts.
    """
    assert case.child is not None
    own = [pod for pod in case.observed.pods if owned_by(pod, case.child["metadata"]["uid"])]
    live = [pod for pod in own if not pod_ended(pod)]
    loose = [pod for pod in live if not pod["spec"].get("nodeName") and "deletionTimestamp" not in pod["metadata"]]
    if loose:
        since = min(parse_time(pod["metadata"]["creationTimestamp"]) for pod in loose)
        word_and_cause = pod_waits_for(loose[0]) or ("", "The pod got no node in time.")
        return _Unplaced((case.now - since).total_seconds(), word_and_cause[1])
    waited, done = start_seconds(case), sum(pod.get("status", {}).get("phase") == "Succeeded" for pod in own)
    wanted = case.spec.resources.nodes
    all_there = len(live) + done >= wanted
    if all_there or waited is None or (is_restarting(case) and not case.admission.quota):
        return None
    return _Unplaced(waited, case.admission.quota or no_pod(child_name(case.observed.name, case.observed.uid))[1])
