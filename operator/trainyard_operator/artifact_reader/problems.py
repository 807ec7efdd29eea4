"""Why an artifact reader does not run, from its pod and the pod's events. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from trainyard_kube.paths import Object
from trainyard_operator.reconcile.fields import condition, holds, parse_time

_SCHEDULED, _NO_NODE = "PodScheduled", "FailedScheduling"
_CREATING = ("ContainerCreating", "PodInitializing")
_MOUNT_SECONDS = timedelta(seconds=15)
"""Time for which a pod on a node may need to mount its volumes without a word about it."""
_END_SECONDS = timedelta(seconds=30)
"""Time after the end of its grace period after which a pod that still exists is reported."""


def problem_of(pod: Object, claim: str, warning: str | None = None) -> str | None:
    """Return what keeps the reader of a claim from running, a sentence; None while it runs or is starting.

    Args:
        pod: Its pod.
        claim: Name of the claim.
        warning: What is known beside the pod's status, for example by the newest Event.
    """
    cause = _unscheduled(pod) or _waiting(pod) or (None if _is_running(pod) else warning)
    if cause is None:
        return None
    return f"The files of claim {claim} cannot be read yet: {cause.rstrip('. ')}."


def is_running(pod: Object) -> bool:
    """Return whether a reader answers."""
    return holds(pod, "Ready") and not is_ending(pod)


def is_stuck(pod: Object, now: datetime) -> bool:
    """Return whether a pod has had a node for a while and its container was not created: Events say why."""
    if is_ending(pod) or _is_running(pod) or _waiting(pod) or not holds(pod, _SCHEDULED):
        return False
    since = (condition(pod, _SCHEDULED) or {}).get("lastTransitionTime")
    return since is not None and now - parse_time(since) > _MOUNT_SECONDS


def overdue_end(pod: Object, now: datetime) -> str | None:
    """Return that an earlier reader, which is being deleted, has not ended in time: then its node is not reachable."""
    if not is_ending(pod) or now - parse_time(pod["metadata"]["deletionTimestamp"]) < _END_SECONDS:
        return None
    node = (pod.get("spec") or {}).get("nodeName")
    return f"its earlier reader on node {node} does not end. If the node is lost, delete it from the cluster"


def newest_warning(events: Iterable[Object]) -> str | None:
    """Return what the newest Event of type Warning says; those from before the pod had a node say nothing any more."""
    warnings = [event for event in events if event.get("type") == "Warning" and event.get("reason") != _NO_NODE]
    newest = max(warnings, key=_time, default=None)
    return None if newest is None else str(newest.get("note") or newest.get("reason") or "")


def has_ended(pod: Object) -> bool:
    """Return whether a reader has ended or is being deleted."""
    phase = (pod.get("status") or {}).get("phase")
    return phase in ("Succeeded", "Failed") or is_ending(pod)


def is_ending(pod: Object) -> bool:
    """Return whether a reader is being deleted."""
    return "deletionTimestamp" in pod["metadata"]


def _is_running(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") == "Running" and not is_ending(pod)


def _unscheduled(pod: Object) -> str | None:
    scheduled = condition(pod, _SCHEDULED)
    if scheduled is None or scheduled["status"] != "False":
        return None
    return str(scheduled.get("message") or "its reader has no node")


def _waiting(pod: Object) -> str | None:
    """Return why a container waits, other than for its volumes; of one that fails again and again, its last end."""
    for entry in (pod.get("status") or {}).get("containerStatuses") or []:
        waiting = (entry.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason")
        if not reason or reason in _CREATING:
            continue
        ended = (entry.get("lastState") or {}).get("terminated")
        if ended:
            return f"its reader ends with exit code {ended.get('exitCode')} ({ended.get('reason')})"
        return f"{reason}: {waiting['message']}" if waiting.get("message") else str(reason)
    return None


def _time(event: Object) -> str:
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("deprecatedLastTimestamp"), event.get("eventTime"))
    return max(str(time) for time in (*times, "") if time is not None)
