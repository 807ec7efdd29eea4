"""A start that comes to nothing: the job gives back its GPUs and is tried again later, from its old place.

That is for pods without a node, which others can help by ending, or would get on without. What a bound pod waits for
(its image, a Secret, a volume) is its own affair: it keeps its GPUs until spec.startDeadlineSeconds.
"""

from __future__ import annotations

from datetime import timedelta

from trainyard_crds.contract import child_name
from trainyard_crds.trainingjob_status import Phase
from trainyard_operator.queue.backoff import backoff
from trainyard_operator.trainingjob.case import Case
from trainyard_operator.trainingjob.deadlines import start_limit, start_seconds, tried_seconds
from trainyard_operator.trainingjob.model import Decision, Object
from trainyard_operator.trainingjob.objects import condition, format_time, job_suspended, parse_time, pod_ended
from trainyard_operator.trainingjob.waiting import is_restarting, no_pod, pod_waits_for

_REASON = "NotPlaced"
_MESSAGE_LIMIT = 1000


def give_back(case: Case) -> Decision | None:
    """Count a start whose pods got no node in time, then suspend its Job; None where there is nothing to give back.

    The count is written first: a kill in between neither loses it nor counts a start twice, and the queue knows of the
    delay before it sees that the job waits.
    """
    if case.child is None:
        return None
    if _is_counted(case):
        return _give_back(case)
    waited, patience = start_seconds(case), case.admission.start_seconds
    if waited is None or patience is None or waited < patience or tried_seconds(case) >= start_limit(case):
        return None
    cause = None if case.admission.preempted else _unplaced(case)
    return None if cause is None else _count(case, cause)


def _is_counted(case: Case) -> bool:
    running = condition(case.observed.job, "Running")
    counted = running is not None and running["reason"] == _REASON
    return counted and case.observed.status.get("phase") == Phase.SUSPENDING


def _give_back(case: Case) -> Decision | None:
    """Suspend a Job whose start was counted, unless its pods got their nodes after all; wait for their end."""
    assert case.child is not None
    over = case.idle if job_suspended(case.child) else _unplaced(case) is None
    return None if over else _decision(_failed_starts(case), suspend=True)


def _count(case: Case, cause: str) -> Decision:
    before = _failed_starts(case)
    count = int(before.get("count", 0)) + 1
    failed = {
        "count": count,
        "seconds": int(tried_seconds(case)),
        "message": f"{cause[:_MESSAGE_LIMIT].rstrip('.')}.",
        "notBefore": format_time(case.now + timedelta(seconds=backoff(count))),
    }
    return _decision(failed, suspend=None)


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


def _unplaced(case: Case) -> str | None:
    """Why not every pod has a node, in a sentence; None where all have, and between two attempts."""
    assert case.child is not None
    live = [pod for pod in case.observed.pods if not pod_ended(pod) and _owned(pod, case.child)]
    for pod in live:
        if not pod["spec"].get("nodeName"):
            return (pod_waits_for(pod) or ("", "The pod got no node in time."))[1]
    if live or is_restarting(case):
        return None
    return no_pod(child_name(case.observed.name, case.observed.uid))[1]


def _owned(pod: Object, child: Object) -> bool:
    owners = pod["metadata"].get("ownerReferences", [])
    return any(entry.get("controller") and entry["uid"] == child["metadata"]["uid"] for entry in owners)
