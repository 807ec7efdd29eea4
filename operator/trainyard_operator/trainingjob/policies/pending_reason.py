"""Why the container of a started job does not run yet."""

from __future__ import annotations

import re

from trainyard_crds.constants import child_name
from trainyard_kube.paths import Object
from trainyard_operator.reconcile.fields import condition, parse_time
from trainyard_operator.reconcile.plan import FAILED_CREATE, Need
from trainyard_operator.trainingjob.k8s_fields import container_state, pod_ended, pod_phase
from trainyard_operator.trainingjob.pods.gang_faults import Gang
from trainyard_operator.trainingjob.pods.redact import redact
from trainyard_operator.trainingjob.policies.deadlines import seconds_starting
from trainyard_operator.trainingjob.policy_context import PolicyContext

Cause = tuple[str, str]
"""CamelCase reason and sentence."""

_PULL_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
_BACK_OFF = re.compile(r'^Back-off pulling image "[^"]*"(: ErrImagePull: )?')
WAITING_FOR_NODES = "WaitingForNodes"
NO_POD_SECONDS = 30
"""Seconds after which a Job without a pod is reported."""
GANG_STARTS_AGAIN = "The group starts again from the last checkpoint."
_CREATING_POD = re.compile(r'^Error creating: pods "[^"]*"')
"""Beginning of the Job controller's message; the name of the pod is another one at each try."""
_PROGRESSING = ("ContainerCreating", "PodInitializing")


def pending_reason(context: PolicyContext) -> Cause:
    """Return what a started job waits for."""
    pod, last = context.history.pod, context.history.last
    if context.admission.quota and (seconds_starting(context) or 0) >= NO_POD_SECONDS:
        return "QuotaExceeded", context.admission.quota
    if last is not None and "finishedAt" in last:
        return _restarting(context, last) if is_restarting(context) else resuming()
    if context.history.gang is not None:
        return _gang_pending_reason(context, context.history.gang)
    if pod is None:
        return _no_pod_yet(context)
    growth = context.admission.growth
    return pod_pending_reason(pod, growth) or starting(child_name(context.observed.name, context.observed.uid))


def pod_pending_reason(pod: Object, growth: str = "") -> Cause | None:
    """Return what keeps a pod's container from running; None while it only takes its time.

    Args:
        pod: The pod.
        growth: `Admission.growth` of its job.
    """
    waiting = container_state(pod).get("waiting")
    if waiting is not None and waiting.get("reason") not in _PROGRESSING:
        return _container_waits(pod, waiting)
    scheduled = condition(pod, "PodScheduled")
    if scheduled is not None and scheduled["status"] == "False":
        detail = redact(scheduled.get("message") or "no node fits")
        text = f"No node can take the pod: {detail}"
        return (WAITING_FOR_NODES, f"{growth} {text}") if growth else (scheduled.get("reason") or "Unschedulable", text)
    return None


def resuming() -> Cause:
    """Return what a suspended job waits for once it may continue."""
    return "Resuming", "The job resumes where it was."


def starting(name: str) -> Cause:
    """Return what a new Job waits for: one text until its container runs, since each change costs a write."""
    return "JobCreated", f"The Job {name} starts its pod, which gets its node, image and volumes."


def no_pod(name: str, refusal: str = "") -> Cause:
    """Return the cause of a Job that gets no pod.

    Args:
        name: The Job's.
        refusal: Message of the Event in which the Job controller states why; empty if there is none.
    """
    if refusal:
        cause = redact(_CREATING_POD.sub("the pod", refusal, count=1)).rstrip(".")
        return "NoPod", f"The Job {name} gets no pod: {cause}."
    text = (
        f"The Job {name} gets no pod; a ResourceQuota or an admission policy may refuse it: kubectl describe job {name}"
    )
    return "NoPod", text


def no_pod_need(context: PolicyContext) -> Need | None:
    """Return the look-up of why a Job has lacked a pod for a while; None if it has its pods, or that is known."""
    waited = None if context.child is None else seconds_starting(context)
    if waited is None or waited < NO_POD_SECONDS or context.admission.quota or is_restarting(context):
        return None
    pods, need = context.observed.pods, _failed_create(context)
    is_between_attempts = any(pod_ended(pod) and pod_phase(pod) != "Succeeded" for pod in pods)
    if is_between_attempts or len(pods) >= context.spec.resources.nodes or need in context.observed.answers:
        return None
    return need


def no_pod_cause(context: PolicyContext) -> Cause:
    """Return the cause of a job whose Job gets no pod, with what `no_pod_need` looked up."""
    refusal = context.observed.answers.get(_failed_create(context)) or ""
    return no_pod(child_name(context.observed.name, context.observed.uid), refusal)


def _failed_create(context: PolicyContext) -> Need:
    return Need(FAILED_CREATE, child_name(context.observed.name, context.observed.uid))


def is_restarting(context: PolicyContext) -> bool:
    """Return whether the Job controller is about to follow an ended attempt by another one."""
    last = context.history.last
    return last is not None and "finishedAt" in last and not _was_suspended_since(context, last["finishedAt"])


def _gang_pending_reason(context: PolicyContext, gang: Gang) -> Cause:
    """Return what the first pending pod waits for, and how many pods run."""
    name = child_name(context.observed.name, context.observed.uid)
    cause = pod_pending_reason(gang.waiting, context.admission.growth) if gang.waiting else None
    if cause is None and not gang.running:
        return _no_pod_yet(context) if gang.waiting is None else starting(name)
    reason, text = cause or ("JobCreated", f"The Job {name} starts its pods, which get their nodes, image and volumes.")
    return reason, f"{text} {gang.running} of {gang.size} pods run."


def _no_pod_yet(context: PolicyContext) -> Cause:
    name = child_name(context.observed.name, context.observed.uid)
    waited = None if context.child is None else seconds_starting(context)
    if waited is None or waited < NO_POD_SECONDS:
        return starting(name)
    return no_pod_cause(context)


def _was_suspended_since(context: PolicyContext, moment: str) -> bool:
    found = condition(context.child, "Suspended")
    if found is None:
        return False
    return found["status"] == "True" or parse_time(found["lastTransitionTime"]) >= parse_time(moment)


def _restarting(context: PolicyContext, last: Object) -> Cause:
    follows = "The next attempt follows." if context.history.gang is None else GANG_STARTS_AGAIN
    return "Restarting", f"Attempt {last['number']} ended: {last['message']} {follows}"


def _container_waits(pod: Object, waiting: Object) -> Cause:
    reason, detail = waiting.get("reason") or "ContainerWaiting", redact(waiting.get("message") or "")
    if reason in _PULL_REASONS:
        # The kubelet alternates between two reasons for one fault; the status must not.
        steady = "ImagePullBackOff" if reason == "ErrImagePull" else reason
        cause = _BACK_OFF.sub("", detail)
        image = pod["spec"].get("image", "")
        return steady, f"The image {image} cannot be pulled{': ' + cause if cause else ''}."
    if reason == "CreateContainerConfigError":
        return reason, f"The container cannot be set up: {detail}. Create what is missing."
    return reason, f"The container waits: {detail or reason}."
