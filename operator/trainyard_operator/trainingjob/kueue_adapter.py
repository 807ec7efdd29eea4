"""Converts a job's Kueue Workload into an admission decision.

Kueue (kueue.x-k8s.io/v1beta2) creates one Workload for each suspended Job that has a queue-name label, and starts and
stops the Job by it. Kueue owns the Job's `spec.suspend` and template; the operator does not write them.
"""

from __future__ import annotations

import re
from datetime import datetime

from trainyard_kube.paths import Object
from trainyard_operator.admission.decision import Admission, KueueHandoff
from trainyard_operator.queue.kueue_workload import QUEUE_LABEL, is_active, is_held, start_failure
from trainyard_operator.queue.position import QueuePosition
from trainyard_operator.reconcile.fields import condition, holds, parse_time
from trainyard_operator.trainingjob.k8s_fields import job_suspended
from trainyard_operator.trainingjob.model import Observed

PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"

_WORKLOAD_SECONDS = 30
"""Seconds after which the status of a Job without a Workload names possible causes."""
_MESSAGE_LIMIT = 600
_DEACTIVATED, _BY_KUEUE = "Deactivated", "DeactivatedDueTo"
_GENERIC = "Pending"
"""Kueue's only reason, unless its feature gate UnadmittedWorkloadsObservability is on."""
_IN_USE = re.compile(r"insufficient unused quota for \S+ in flavor ([^\s,]+)")
_TOO_LARGE = re.compile(r"insufficient quota for \S+ in flavor ([^\s,]+)")
_UNFIT = ("doesn't match node affinity", "untolerated taint")
"""Kueue's messages for a flavor in use, one that is too small, and one whose nodes the pods do not match."""
_INACTIVE = re.compile(r"(ClusterQueue|LocalQueue) (\S+) is inactive")
_LESS = "lower spec.resources, or ask the administrator for more quota."
_NEVER = f" Its queue never has that much: {_LESS}"
_NEVER_OF_THOSE = (
    " It may not use the other flavors of its queue, and this one never has that much: "
    f"match another with spec.resources.nodeSelector and tolerations, {_LESS}"
)
_NOWHERE = " No ResourceFlavor of its queue matches spec.resources.nodeSelector and tolerations."
_STOPPED_BY = {
    "InCohortReclamation": "A queue that lent its quota takes it back.",
    "InCohortReclaimWhileBorrowing": "A queue that lent its quota takes it back.",
    "InCohortFairSharing": "Its queue had borrowed more than its fair share.",
}
"""Explanations of the reasons of Kueue's condition `Preempted` where another queue is the cause."""


def queue_name(observed: Observed, default: str | None) -> str | None:
    """Return the LocalQueue of a job; None if neither the job nor the settings name one."""
    name = observed.spec.queue.name or default
    return name or (labels(observed.child).get(QUEUE_LABEL) if observed.child else None)


def labels(obj: Object) -> dict[str, str]:
    """Return the labels of an object."""
    return obj["metadata"].get("labels") or {}


def is_kueue_managed(child: Object) -> bool:
    """Return whether Kueue starts and stops a Job."""
    return QUEUE_LABEL in labels(child)


def failure_message(workload: Object) -> str | None:
    """Return why Kueue will never start the Job of a Workload, in a sentence; None otherwise."""
    message = start_failure(workload)
    return None if message is None else _sentence(message, "it gives no reason")


def kueue_admission(
    observed: Observed,
    *,
    default_queue: str | None,
    problem: str | None,
    workload: Object | None,
    position: QueuePosition | None,
    now: datetime,
) -> Admission:
    """Return Kueue's decision about a job.

    Args:
        observed: The job and its children.
        default_queue: LocalQueue of jobs that name none.
        problem: Why Kueue cannot be read, a sentence; None while it can.
        workload: The Workload of its Job.
        position: Its queue position, if known.
        now: The time.
    """
    name, child = queue_name(observed, default_queue), observed.child
    handoff = KueueHandoff({QUEUE_LABEL: name, PRIORITY_LABEL: _priority_class(observed)} if name else {}, workload)
    queue = _identity(child, name)
    waiting = _waiting_reason(child, name, problem, workload, now)
    if waiting is None:
        return Admission(admitted=True, reason="Admitted", message="", queue=queue or None, handoff=handoff)
    reason, message = waiting
    is_queued = workload is not None and is_active(workload) and not _is_ignored(workload)
    shown = position if is_queued else None
    return Admission(
        admitted=False,
        reason=reason,
        message=message,
        queue=queue | {"reason": reason[:64]} | (shown._asdict() if shown else {}),
        pending=name is None and child is None,
        handoff=handoff,
    )


def _waiting_reason(
    child: Object | None, name: str | None, problem: str | None, workload: Object | None, now: datetime
) -> tuple[str, str] | None:
    """Return reason and message of a waiting job; None if its Job runs, starts or has yet to be created."""
    if child is not None and not job_suspended(child):
        return None
    if name is None:
        return "QueueNameMissing", _QUEUE_NAME_MISSING
    if problem is not None:
        return "KueueUnavailable", problem
    if child is None:
        return None
    return _workload_missing(child, now) if workload is None else workload_reason(workload)


_QUEUE_NAME_MISSING = (
    "spec.queue.name is not set and this installation has no default LocalQueue. Set spec.queue.name to a LocalQueue "
    "of this namespace (kubectl get localqueues), or ask the administrator for the chart value queue.localQueue."
)


def workload_reason(workload: Object) -> tuple[str, str] | None:
    """Return reason and message of a Workload that waits or was evicted; None if it is admitted.

    A Workload that the operator deactivated counts as active, since the operator activates it again.
    """
    if is_deactivated(workload):
        return _deactivated(workload)
    if holds(workload, "Evicted") and not _was_deactivated(workload):
        return _evicted(workload)
    return None if holds(workload, "Admitted") else _unadmitted(workload)


def is_deactivated(workload: Object) -> bool:
    """Return whether a Workload was deactivated by anything but the operator, so that the job cannot start."""
    return (not is_active(workload) and not is_held(workload)) or _is_ignored(workload)


def _is_ignored(workload: Object) -> bool:
    """Return whether Kueue deactivated a Workload that was activated since: Kueue 0.19 does not requeue it."""
    requeued = condition(workload, "Requeued") or {"status": "True"}
    by_kueue = requeued["status"] == "False" and _is_by_kueue(requeued)
    return by_kueue and is_active(workload) and not holds(workload, "QuotaReserved")


def _is_by_kueue(found: Object) -> bool:
    """Return whether a condition reports a deactivation by Kueue: a check, too many retries or too much time."""
    return str(found.get("reason", "")).startswith(_BY_KUEUE)


def _was_deactivated(workload: Object) -> bool:
    """Return whether the last eviction was a deactivation; the condition stays until quota is reserved again."""
    return str((condition(workload, "Evicted") or {}).get("reason", "")).startswith(_DEACTIVATED)


def _unadmitted(workload: Object) -> tuple[str, str]:
    """Return reason and message of a Workload without quota."""
    reserved = condition(workload, "QuotaReserved")
    if reserved is None or _is_stale(workload, reserved):
        return "WaitingForTurn", f"It waits in the LocalQueue {workload['spec'].get('queueName', '')}."
    if reserved["status"] == "True":
        return "WaitingForAdmissionChecks", _checks(workload)
    given, message = str(reserved["reason"]), str(reserved.get("message", ""))
    parsed = _parse_reason(message)
    reason = parsed if given == _GENERIC else given
    return reason, f"Kueue has not admitted it: {_sentence(message, reason)}{_remedy(reason, parsed, message)}"


def _is_stale(workload: Object, reserved: Object) -> bool:
    """Return whether the condition QuotaReserved is still that of a deactivation, before Kueue considers it again."""
    if reserved["reason"] == _DEACTIVATED:
        return True
    evicted = condition(workload, "Evicted")
    same_message = evicted is not None and reserved.get("message") == evicted.get("message")
    return same_message and _was_deactivated(workload)


def _parse_reason(message: str) -> str:
    """Derive Kueue's specific reason from its message about each flavor.

    A flavor in use may become free, whatever is wrong with the others. A flavor that is too small for one resource
    never fits, whatever becomes free of another.
    """
    small = set(_TOO_LARGE.findall(message))
    if set(_IN_USE.findall(message)) - small:
        return "WaitingForQuota"
    if small:
        return "ExceedsMaxQuota"
    return "NoMatchingFlavor" if _is_unfit(message) else "WaitingForQuota"


def _is_unfit(message: str) -> bool:
    return any(text in message for text in _UNFIT)


def _remedy(reason: str, parsed: str, message: str) -> str:
    """Return what the user can do about Kueue's message; empty if the job only has to wait."""
    if inactive := _INACTIVE.search(message):
        kind, name = inactive.groups()
        return (
            f" It is held, or lacks what it names: see the condition Active in kubectl describe {kind.lower()} {name}."
        )
    if reason != parsed:
        return ""
    if reason == "ExceedsMaxQuota" and _TOO_LARGE.search(message):
        return _NEVER_OF_THOSE if _is_unfit(message) else _NEVER
    return _NOWHERE if reason == "NoMatchingFlavor" and _is_unfit(message) else ""


def _evicted(workload: Object) -> tuple[str, str]:
    """Return reason and message of an evicted Workload: the eviction, and what it waits for since."""
    found = condition(workload, "Evicted") or {}
    reason = str(found.get("reason") or "Evicted")
    ran = condition(workload, "Admitted") is not None
    parts = [
        "Kueue stopped it:" if ran else "Kueue took its quota back:",
        _sentence(found.get("message", ""), reason),
        _preemption(workload) if reason == "Preempted" else "",
        _unadmitted(workload)[1] if _waits_since_eviction(workload, found) else "",
        "It resumes where it was when Kueue admits it." if ran else "It starts when Kueue admits it.",
        _requeue_time(workload),
    ]
    return reason, " ".join(filter(None, parts))


def _preemption(workload: Object) -> str:
    """Return why another queue preempted a Workload; empty where its own did."""
    preempted = condition(workload, "Preempted") or {}
    return _STOPPED_BY.get(str(preempted.get("reason")), "")


def _waits_since_eviction(workload: Object, evicted: Object) -> bool:
    """Return whether Kueue has stated, since an eviction, what a Workload waits for."""
    reserved = condition(workload, "QuotaReserved") or {}
    return reserved.get("status") == "False" and reserved.get("message") not in (None, "", evicted.get("message"))


def _requeue_time(workload: Object) -> str:
    requeue = (workload.get("status") or {}).get("requeueState") or {}
    return f"Kueue considers it again at {requeue['requeueAt']}." if requeue.get("requeueAt") else ""


def _sentence(message: str, otherwise: str) -> str:
    """Return a message of Kueue as a sentence of limited length."""
    text = (message.strip() or otherwise)[:_MESSAGE_LIMIT]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _priority_class(observed: Observed) -> str:
    return f"trainyard-p{observed.spec.queue.priority}"


def _identity(child: Object | None, name: str | None) -> Object:
    """Return the part of `status.queue` that a job keeps for life."""
    if child is not None and not job_suspended(child):
        name = labels(child).get(QUEUE_LABEL, name)
    entry: Object = {"pool": name} if name else {}
    return entry if child is None else entry | {"enqueuedAt": child["metadata"]["creationTimestamp"]}


def _workload_missing(child: Object, now: datetime) -> tuple[str, str]:
    """Return reason and message of a Job without a Workload."""
    waited = (now - parse_time(child["metadata"]["creationTimestamp"])).total_seconds()
    if waited < _WORKLOAD_SECONDS:
        return "WaitingForKueue", "Kueue has not taken up its Job yet."
    name = child["metadata"]["name"]
    return "WaitingForKueue", (
        f"Kueue has made no Workload for the Job {name}: kubectl describe job {name} shows why, for example that the "
        f"WorkloadPriorityClass {labels(child).get(PRIORITY_LABEL, '')} is missing. If it shows nothing, Kueue "
        "does not run."
    )


def _deactivated(workload: Object) -> tuple[str, str]:
    cause = _cause(workload)
    named = f"workloads.kueue.x-k8s.io {workload['metadata']['name']} -n {workload['metadata']['namespace']}"
    remedy = f"""kubectl patch {named} --type=merge -p '{{"spec":{{"active":true}}}}'"""
    if _is_by_kueue(cause):
        remedy = f"kubectl delete {named}"  # Kueue creates another one; it does not requeue this one
    said = f": {_sentence(cause['message'], '')}" if cause.get("message") else "."
    return cause.get("reason") or _DEACTIVATED, (
        f"Its Workload was deactivated, not by spec.suspend{said} A user with permission queues it again by {remedy}."
    )


def _cause(workload: Object) -> Object:
    """Return reason and message of a deactivation; Kueue sets DeactivationTarget before it evicts."""
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
    named = f": {', '.join(open_ones)}"[:_MESSAGE_LIMIT] if open_ones else ""
    return f"Its quota is reserved; it waits for admission checks{named}."
