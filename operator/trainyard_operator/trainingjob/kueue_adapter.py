"""What Kueue decides about a job: the labels it is handed over with, and its Workload read as an answer for `plan`.

Kueue (kueue.x-k8s.io/v1beta2) makes one Workload for each suspended Job with a queue-name label and starts and stops
the Job by it. Nothing here writes the Job's `spec.suspend` or its template: those are Kueue's.
"""

from __future__ import annotations

import re
from datetime import datetime

from trainyard_kube.paths import Object
from trainyard_operator.admission.decision import Admission, KueueHandoff
from trainyard_operator.queue.kueue_workload import is_active, is_held, last_words
from trainyard_operator.queue.position import Place
from trainyard_operator.reconcile.fields import condition, holds, parse_time
from trainyard_operator.trainingjob.k8s_fields import job_suspended
from trainyard_operator.trainingjob.model import Observed

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"

_TAKE_UP_SECONDS = 30
"""Seconds after which a Job without a Workload is worth a hint."""
_LONGEST = 600
_DEACTIVATED, _BY_KUEUE = "Deactivated", "DeactivatedDueTo"
_GENERIC = "Pending"
"""The reason that Kueue gives for everything, unless its gate UnadmittedWorkloadsObservability tells more."""
_NO_ROOM = re.compile(r"insufficient unused quota for \S+ in flavor ([^\s,]+)")
_TOO_LARGE = re.compile(r"insufficient quota for \S+ in flavor ([^\s,]+)")
_UNFIT = ("doesn't match node affinity", "untolerated taint")
"""What it says of a flavor that is in use, of one that is too small, and of one whose nodes the pods cannot have."""
_INACTIVE = re.compile(r"(ClusterQueue|LocalQueue) (\S+) is inactive")
_LESS = "lower spec.resources, or ask the administrator for more quota."
_NEVER = f" Its queue never has as much: {_LESS}"
_NEVER_OF_THOSE = (
    " It may not use the other flavors of its queue, and of this never has as much: "
    f"agree with another by spec.resources.nodeSelector and tolerations, {_LESS}"
)
_NOWHERE = " No ResourceFlavor of its queue agrees with spec.resources.nodeSelector and tolerations."
_STOPPED_BY = {
    "InCohortReclamation": "A queue that lent its quota takes it back.",
    "InCohortReclaimWhileBorrowing": "A queue that lent its quota takes it back.",
    "InCohortFairSharing": "Its queue had borrowed more than its fair share.",
}
"""What Kueue means by the reason of its condition `Preempted`, where another queue is the cause."""


def queue_name(observed: Observed, default: str | None) -> str | None:
    """The LocalQueue a job is to wait in; None where nobody names one."""
    asked = observed.spec.queue.name or default
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
    handoff = KueueHandoff({QUEUE_LABEL: name, PRIORITY_LABEL: _class(observed)} if name else {}, workload)
    queue = _entry(child, name)
    waits = _waits(child, name, problem, workload, now)
    if waits is None:
        return Admission(admitted=True, reason="Admitted", message="", queue=queue or None, handoff=handoff)
    reason, message = waits
    shown = place if workload is not None and is_active(workload) and not _is_left_out(workload) else None
    return Admission(
        admitted=False,
        reason=reason,
        message=message,
        queue=queue | {"reason": reason[:64]} | (shown._asdict() if shown else {}),
        pending=name is None and child is None,
        handoff=handoff,
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
    if is_barred(workload):
        return _deactivated(workload)
    if holds(workload, "Evicted") and not _was_deactivated(workload):
        return _evicted(workload)
    return None if holds(workload, "Admitted") else _unadmitted(workload)


def is_barred(workload: Object) -> bool:
    """Whether a Workload stays out whatever the TrainingJob asks for: it was not deactivated for its own sake."""
    return (not is_active(workload) and not is_held(workload)) or _is_left_out(workload)


def _is_left_out(workload: Object) -> bool:
    """Whether Kueue deactivated a Workload, which was activated since: Kueue 0.19 never looks at such a one again."""
    requeued = condition(workload, "Requeued") or {"status": "True"}
    by_kueue = requeued["status"] == "False" and _is_by_kueue(requeued)
    return by_kueue and is_active(workload) and not holds(workload, "QuotaReserved")


def _is_by_kueue(found: Object) -> bool:
    """Whether a condition tells of a deactivation by Kueue itself, for a check, too many retries or too much time."""
    return str(found.get("reason", "")).startswith(_BY_KUEUE)


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
    return reason, f"Kueue lets it wait: {_sentence(said, reason)}{_remedy(reason, found, said)}"


def _reason_in(said: str) -> str:
    """The reason that Kueue does not give, from what it says of each flavor, in its own words for it.

    A flavor in use may become free, whatever is wrong with the others; one that is too small in one resource never has
    room, whatever may become free of another.
    """
    small = set(_TOO_LARGE.findall(said))
    if set(_NO_ROOM.findall(said)) - small:
        return "WaitingForQuota"
    if small:
        return "ExceedsMaxQuota"
    return "NoMatchingFlavor" if _is_unfit(said) else "WaitingForQuota"


def _is_unfit(said: str) -> bool:
    return any(words in said for words in _UNFIT)


def _remedy(reason: str, found: str, said: str) -> str:
    """What to do about what Kueue says; empty where waiting is all."""
    if inactive := _INACTIVE.search(said):
        kind, name = inactive.groups()
        return (
            f" It is held, or lacks what it names: see the condition Active in kubectl describe {kind.lower()} {name}."
        )
    if reason != found:
        return ""
    if reason == "ExceedsMaxQuota" and _TOO_LARGE.search(said):
        return _NEVER_OF_THOSE if _is_unfit(said) else _NEVER
    return _NOWHERE if reason == "NoMatchingFlavor" and _is_unfit(said) else ""


def _evicted(workload: Object) -> tuple[str, str]:
    """Why Kueue took a Workload's quota back, and what it says since."""
    found, reserved = condition(workload, "Evicted") or {}, condition(workload, "QuotaReserved") or {}
    reason = str(found.get("reason") or "Evicted")
    ran = condition(workload, "Admitted") is not None
    words = ["Kueue stopped it:" if ran else "Kueue took its quota back:", _sentence(found.get("message", ""), reason)]
    if reason == "Preempted":
        words.append(_STOPPED_BY.get(str((condition(workload, "Preempted") or {}).get("reason")), ""))
    if reserved.get("status") == "False" and reserved.get("message") not in (None, "", found.get("message")):
        words.append(_unadmitted(workload)[1])
    words.append("It resumes where it was when Kueue lets it in." if ran else "It starts when Kueue lets it in.")
    if later := ((workload.get("status") or {}).get("requeueState") or {}).get("requeueAt"):
        words.append(f"Kueue considers it again at {later}.")
    return reason, " ".join(word for word in words if word)


def _sentence(message: str, otherwise: str) -> str:
    """A message of Kueue with a full stop, at most 600 characters."""
    text = (message.strip() or otherwise)[:_LONGEST]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _class(observed: Observed) -> str:
    return f"trainyard-p{observed.spec.queue.priority}"


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
    cause = _cause(workload)
    named = f"workloads.kueue.x-k8s.io {workload['metadata']['name']} -n {workload['metadata']['namespace']}"
    remedy = f"""kubectl patch {named} --type=merge -p '{{"spec":{{"active":true}}}}'"""
    if _is_by_kueue(cause):
        remedy = f"kubectl delete {named}"  # Kueue makes another one; it would never look at this one again
    said = f": {_sentence(cause['message'], '')}" if cause.get("message") else "."
    return cause.get("reason") or _DEACTIVATED, (
        f"Its Workload was deactivated, not by spec.suspend{said} Whoever may do so lets it wait again by {remedy}."
    )


def _cause(workload: Object) -> Object:
    """Reason and message of a deactivation, as soon as Kueue means to: first it deactivates, then it evicts."""
    if holds(workload, "Evicted"):
        return condition(workload, "Evicted") or {}
    if not holds(workload, "DeactivationTarget"):
        return {}
    target = condition(workload, "DeactivationTarget") or {}
    said = f"The workload is deactivated due to {target.get('message', '')}"
    return {"reason": f"{_BY_KUEUE}{target.get('reason', '')}", "message": said}


def _checks(workload: Object) -> str:
    checks = (workload.get("status") or {}).get("admissionChecks") or []
    open_ones = [
        f"{check['name']} ({check['state']}{': ' + check['message'] if check.get('message') else ''})"
        for check in checks
        if check.get("state") != "Ready"
    ]
    named = f": {', '.join(open_ones)}"[:_LONGEST] if open_ones else ""
    return f"Its quota is reserved; it waits for admission checks{named}."
