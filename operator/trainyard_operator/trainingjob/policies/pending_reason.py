"""Why a started job does not run yet."""

from __future__ import annotations

import re

from trainyard_crds.constants import child_name
from trainyard_kube.paths import Object
from trainyard_operator.reconcile.fields import condition, parse_time
from trainyard_operator.trainingjob.k8s_fields import container_state
from trainyard_operator.trainingjob.pods.gang_faults import Group
from trainyard_operator.trainingjob.pods.redact import redact
from trainyard_operator.trainingjob.policies.deadlines import start_seconds
from trainyard_operator.trainingjob.policy_context import Case

_PULL_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
_BACK_OFF = re.compile(r'^Back-off pulling image "[^"]*"(: ErrImagePull: )?')
NO_POD_SECONDS = 30
"""Seconds after which a Job without a pod is worth a hint."""
GROUP_STARTS_AGAIN = "The group starts again from the last checkpoint."
_PROGRESSING = ("ContainerCreating", "PodInitializing")


def waiting_reason(case: Case) -> tuple[str, str]:
    """CamelCase word and sentence for what a started job waits for."""
    pod, last = case.history.pod, case.history.last
    if case.admission.quota and (start_seconds(case) or 0) >= NO_POD_SECONDS:
        return "QuotaExceeded", case.admission.quota
    if last is not None and "finishedAt" in last:
        return _restarting(case, last) if is_restarting(case) else resuming()
    if case.history.group is not None:
        return _group_waits(case, case.history.group)
    if pod is None:
        return _no_pod(case)
    return pod_waits_for(pod) or starting(child_name(case.observed.name, case.observed.uid))


def _group_waits(case: Case, group: Group) -> tuple[str, str]:
    """What the first pod waits for that does not run, and how many do."""
    name = child_name(case.observed.name, case.observed.uid)
    waits = pod_waits_for(group.waiting) if group.waiting else None
    if waits is None and not group.running:
        return _no_pod(case) if group.waiting is None else starting(name)
    reason, text = waits or ("JobCreated", f"The Job {name} starts its pods, which get their nodes, image and volumes.")
    return reason, f"{text} {group.running} of {group.size} pods run."


def pod_waits_for(pod: Object) -> tuple[str, str] | None:
    """What keeps a pod's container from running; None while nothing does but the time it takes."""
    waiting = container_state(pod).get("waiting")
    if waiting is not None and waiting.get("reason") not in _PROGRESSING:
        return _container(pod, waiting)
    scheduled = condition(pod, "PodScheduled")
    if scheduled is not None and scheduled["status"] == "False":
        return _unscheduled(scheduled)
    return None


def resuming() -> tuple[str, str]:
    """What a suspended job waits for once it may go on."""
    return "Resuming", "The job resumes where it was."


def starting(name: str) -> tuple[str, str]:
    """What a new Job waits for: one text until its container runs, since each change would be one more write."""
    return "JobCreated", f"The Job {name} starts its pod, which gets its node, image and volumes."


def _no_pod(case: Case) -> tuple[str, str]:
    name = child_name(case.observed.name, case.observed.uid)
    waited = None if case.child is None else start_seconds(case)
    if waited is None or waited < NO_POD_SECONDS:
        return starting(name)
    return no_pod(name)


def no_pod(name: str) -> tuple[str, str]:
    """What is said of a Job that has had time to get a pod."""
    text = (
        f"The Job {name} gets no pod; a ResourceQuota or an admission policy may refuse it: kubectl describe job {name}"
    )
    return "NoPod", text


def is_restarting(case: Case) -> bool:
    """Whether the Job controller is to follow an attempt that ended by another one."""
    last = case.history.last
    return last is not None and "finishedAt" in last and not _was_suspended_since(case, last["finishedAt"])


def _was_suspended_since(case: Case, moment: str) -> bool:
    found = condition(case.child, "Suspended")
    if found is None:
        return False
    return found["status"] == "True" or parse_time(found["lastTransitionTime"]) >= parse_time(moment)


def _restarting(case: Case, last: Object) -> tuple[str, str]:
    follows = "The next attempt follows." if case.history.group is None else GROUP_STARTS_AGAIN
    return "Restarting", f"Attempt {last['number']} ended: {last['message']} {follows}"


def _container(pod: Object, waiting: Object) -> tuple[str, str]:
    reason, detail = waiting.get("reason") or "ContainerWaiting", redact(waiting.get("message") or "")
    if reason in _PULL_REASONS:
        # The kubelet alternates between two reasons for one fault; the status must not.
        steady = "ImagePullBackOff" if reason == "ErrImagePull" else reason
        cause = _BACK_OFF.sub("", detail)
        image = pod["spec"].get("image", "")
        return steady, f"The image {image} cannot be pulled{': ' + cause if cause else ''}."
    if reason == "CreateContainerConfigError":
        return (
            reason,
            f"The container cannot be set up: {detail}. Create what is missing.",
        )
    return reason, f"The container waits: {detail or reason}."


def _unscheduled(scheduled: Object) -> tuple[str, str]:
    detail = redact(scheduled.get("message") or "no node fits")
    return scheduled.get("reason") or "Unschedulable", f"No node can take the pod: {detail}"
