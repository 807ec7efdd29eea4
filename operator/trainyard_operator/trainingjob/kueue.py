"""What Kueue decides about a job: the labels it is handed over with, and its Workload read as an answer for `plan`.

Kueue (kueue.x-k8s.io/v1beta2) makes one Workload for each suspended Job with a queue-name label and starts and stops
the Job by it. Nothing here writes the Job's `spec.suspend` or its template: those are Kueue's.
"""

from __future__ import annotations

from datetime import datetime

from trainyard_crds.queue import DEFAULT_PRIORITY
from trainyard_operator.queue.position import Place
from trainyard_operator.queue.workload import is_active, is_held, last_words
from trainyard_operator.trainingjob.admission import Admission, Handover
from trainyard_operator.trainingjob.model import Object, Observed
from trainyard_operator.trainingjob.objects import condition, holds, job_suspended, parse_time

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"

_TAKE_UP_SECONDS = 30
"""Seconds after which a Job without a Workload is worth a hint."""
_LONGEST = 600
_DEACTIVATED = "Deactivated"
_GENERIC = "Pending"
"""The reason that Kueue gives for everything, unless its gate UnadmittedWorkloadsObservability tells more."""
_NO_ROOM, _TOO_LARGE = "insufficient unused quota", "> maximum capacity"
_UNFIT = ("doesn't match node affinity", "untolerated taint")
"""What it says of a flavor that is in use, of one that is too small, and of one whose nodes the pods cannot have."""
_REMEDIES = {
    "ExceedsMaxQuota": " Its queue never has as much: lower spec.resources, or ask the administrator for more quota.",
    "NoMatchingFlavor": " No ResourceFlavor of its queue agrees with spec.resources.nodeSelector and tolerations.",
}


def queue_name(observed: Observed, default: str | None) -> str | None:
    """The LocalQueue a job is to wait in; None where nobody names one."""
    asked = (observed.spec.get("queue") or {}).get("name") or default
    return asked or (labels(observed.child).get(QUEUE_LABEL) if observed.child else None)


def labels(obj: Object) -> dict[str, str]:
    """An object's labels."""
    return obj["metadata"].get("labels") or {}


def is_handed_over(child: Object) -> bool:
    """Whether Kueue starts and stops a Job."""
    return QUEUE_LABEL in labels(child)


def gave_up(workload: Object) -> str | None:
    """Why Kueue will never start the Job of a Workload, a sentence; None where it did not give up."""
    words = last_words(workload)
    return None if words is None else _sentence(words, "it does not say why")


def answer(
    observed: Observed,
    *,
    default: str | None,
    problem: str | None,
    workload: Object | None,
    place: Place | None,
    now: datetime,
) -> Admission:
    """What is known of a job in Kueue.

    Args:
        observed: The job and its children.
        default: LocalQueue of jobs that name none.
        problem: Why nothing can be known, a sentence; None while Kueue is there.
        workload: The Workload of its Job.
        place: Its place among those that wait, where that is known.
        now: The time.
    """
    name, child = queue_name(observed, default), observed.child
    handover = Handover({QUEUE_LABEL: name, PRIORITY_LABEL: _class(observed)} if name else {}, workload)
    queue = _entry(child, name)
    waits = _waits(child, name, problem, workload, now)
    if waits is None:
        return Admission(admitted=True, reason="Admitted", message="", queue=queue or None, handover=handover)
    reason, message = waits
    shown = place if workload is not None and is_active(workload) else None
    return Admission(
        admitted=False,
        reason=reason,
        message=message,
        queue=queue | {"reason": reason[:64]} | (shown._asdict() if shown else {}),
        pending=name is None and child is None,
        handover=handover,
    )


def _waits(
    child: Object | None, name: str | None, problem: str | None, workload: Object | None, now: datetime
) -> tuple[str, str] | None:
    """CamelCase word and sentence for what a job waits for; None where its Job runs, starts or is to be made."""
    if child is not None and not job_suspended(child):
        return None
    if name is None:
        return "QueueNameMissing", _NAMELESS
    if problem is not None:
        return "KueueUnavailable", problem
    if child is None:
        return None
    return _not_taken_up(child, now) if workload is None else reading(workload)


_NAMELESS = (
    "spec.queue.name is not set and this installation has no default LocalQueue. Set spec.queue.name to a LocalQueue "
    "of this namespace (kubectl get localqueues), or ask the administrator for the chart value queue.localQueue."
)


def reading(workload: Object) -> tuple[str, str] | None:
    """CamelCase word and sentence for what a Workload waits for, or why it was stopped; None when it is admitted.

    One that was deactivated for the TrainingJob's own sake is read as if it were active: it will be.
    """
    if not is_active(workload) and not is_held(workload):
        return _deactivated(workload)
    if holds(workload, "Evicted") and not _was_deactivated(workload):
        return _evicted(workload)
    return None if holds(workload, "Admitted") else _unadmitted(workload)


def _was_deactivated(workload: Object) -> bool:
    """Whether the last eviction was by deactivation: Kueue keeps saying so until the Workload has quota again."""
    return str((condition(workload, "Evicted") or {}).get("reason", "")).startswith(_DEACTIVATED)


def _unadmitted(workload: Object) -> tuple[str, str]:
    """What Kueue says of a Workload without quota; after a deactivation the words are of that until it looks again."""
    reserved, past = condition(workload, "QuotaReserved"), condition(workload, "Evicted")
    stale = reserved and past and reserved.get("message") == past.get("message") and _was_deactivated(workload)
    if reserved is None or stale or reserved["reason"] == _DEACTIVATED:
        return "WaitingForTurn", f"It waits in the LocalQueue {workload['spec'].get('queueName', '')}."
    if reserved["status"] == "True":
        return "WaitingForAdmissionChecks", _checks(workload)
    given, said = str(reserved["reason"]), str(reserved.get("message", ""))
    found = _reason_in(said)
    reason = found if given == _GENERIC else given
    remedy = _REMEDIES.get(found, "") if found == reason else ""
    return reason, f"Kueue lets it wait: {_sentence(said, reason)}{remedy}"


def _reason_in(said: str) -> str:
    """The reason that Kueue does not give, from what it says of each flavor, in its own words for it.

    A flavor in use may become free, whatever is wrong with the others.
    """
    if _NO_ROOM in said:
        return "WaitingForQuota"
    if _TOO_LARGE in said:
        return "ExceedsMaxQuota"
    return "NoMatchingFlavor" if any(words in said for words in _UNFIT) else "WaitingForQuota"


def _evicted(workload: Object) -> tuple[str, str]:
    """Why Kueue took a Workload's quota back."""
    found = condition(workload, "Evicted") or {}
    reason = str(found.get("reason") or "Evicted")
    said = _sentence(found.get("message", ""), reason)
    text = f"Kueue stopped it: {said} It resumes where it was when Kueue lets it in."
    later = ((workload.get("status") or {}).get("requeueState") or {}).get("requeueAt")
    return reason, f"{text} Kueue considers it again at {later}." if later else text


def _sentence(message: str, otherwise: str) -> str:
    """A message of Kueue with a full stop, at most 600 characters."""
    text = (message.strip() or otherwise)[:_LONGEST]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _class(observed: Observed) -> str:
    priority = (observed.spec.get("queue") or {}).get("priority", DEFAULT_PRIORITY)
    return f"trainyard-p{priority}"


def _entry(child: Object | None, name: str | None) -> Object:
    """The lasting part of `status.queue`."""
    if child is not None and not job_suspended(child):
        name = labels(child).get(QUEUE_LABEL, name)
    entry: Object = {"pool": name} if name else {}
    return entry if child is None else entry | {"enqueuedAt": child["metadata"]["creationTimestamp"]}


def _not_taken_up(child: Object, now: datetime) -> tuple[str, str]:
    """What is said of a Job that Kueue has made no Workload for."""
    waited = (now - parse_time(child["metadata"]["creationTimestamp"])).total_seconds()
    if waited < _TAKE_UP_SECONDS:
        return "WaitingForKueue", "Kueue has not taken up its Job yet."
    name = child["metadata"]["name"]
    return "WaitingForKueue", (
        f"Kueue has made no Workload for the Job {name}: kubectl describe job {name} tells why, for example that the "
        f"WorkloadPriorityClass {labels(child).get(PRIORITY_LABEL, '')} is missing. If it tells nothing, Kueue does "
        "not run."
    )


def _deactivated(workload: Object) -> tuple[str, str]:
    found = condition(workload, "Evicted")
    cause = found if found is not None and found["status"] == "True" else {}
    metadata = workload["metadata"]
    remedy = (
        f"kubectl patch workloads.kueue.x-k8s.io {metadata['name']} -n {metadata['namespace']} --type=merge "
        """-p '{"spec":{"active":true}}'"""
    )
    said = f": {_sentence(cause['message'], '')}" if cause.get("message") else "."
    return cause.get("reason") or _DEACTIVATED, (
        f"Its Workload was deactivated, not by spec.suspend{said} Whoever may do so lets it wait again by {remedy}."
    )


def _checks(workload: Object) -> str:
    checks = (workload.get("status") or {}).get("admissionChecks") or []
    open_ones = [
        f"{check['name']} ({check['state']}{': ' + check['message'] if check.get('message') else ''})"
        for check in checks
        if check.get("state") != "Ready"
    ]
    named = f": {', '.join(open_ones)}"[:_LONGEST] if open_ones else ""
    return f"Its quota is reserved; it waits for admission checks{named}."
