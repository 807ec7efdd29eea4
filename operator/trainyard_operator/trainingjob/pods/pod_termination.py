"""Reason, message and advice of a pod's end, and what its Job does about it."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from trainyard_crds.exitcodes import EXIT_CODES, ExitCode, OnExit, codes_for, reason_for
from trainyard_crds.report import Outcome, Termination
from trainyard_kube.paths import Object
from trainyard_operator.reconcile.fields import condition, parse_time
from trainyard_operator.trainingjob.k8s_fields import (
    container_state,
    is_gone,
    other_running_containers,
    pod_ended,
    terminated,
)
from trainyard_operator.trainingjob.pods.redact import redact, tail

EVICTED_BY_KUBELET = "EvictedByKubelet"
"""Reason of a pod that the kubelet evicted because the pod itself used too much."""
_MESSAGE_LIMIT = 1024
_OUTPUT_LIMIT = 300
_START_FAILURES = ("StartError", "ContainerCannotRun")
_UNSEEN_ENDS = ("Unknown", "ContainerStatusUnknown")
"""Reasons for a container that the runtime or kubelet finds gone; its exit code (255, 137) is made up."""
_DISRUPTIONS = {
    "EvictionByEvictionAPI": ("Evicted", "The pod was evicted, for example by a drain of its node."),
    "PreemptionByScheduler": ("Preempted", "The scheduler preempted the pod for one of higher priority."),
    "DeletionByTaintManager": ("NodeTainted", "The pod's node became unusable (a NoExecute taint)."),
    "TerminationByKubelet": ("NodePressure", "The node ended the pod: short of resources, or shutting down."),
    "DeletionByPodGC": ("NodeLost", "The pod's node is gone."),
}
_VERDICT_SECONDS = 5
_LAST_EXIT_CODE = 128
"""Higher exit codes mean a signal, or an end that was not observed."""
_BY_KUBELET = "TerminationByKubelet"
_VOLUME = re.compile(r'EmptyDir volume "([^"]+)"')
_VOLUME_FIELDS = {"tmp": "tmpSize", "home": "scratchSize", "shm": "memory"}
"""Fields of spec.resources that set the size limit of a pod's volumes."""


@dataclass(frozen=True)
class ContainerMemory:
    """Memory of the trainer's container.

    Attributes:
        limit: As the user wrote it.
        fields: Fields of the spec whose lower values need less of it.
    """

    limit: str
    fields: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How one pod ended.

    Attributes:
        action: What the Job's podFailurePolicy does about it.
        reason: CamelCase reason.
        message: What happened, in a sentence.
        advice: What to change, in a sentence; may be empty.
        exit_code: Exit code of the trainer's container; None when it never ran.
        started_at, finished_at: API timestamps; None when unknown.
        termination: The trainer's termination message; None when it left none.
    """

    action: OnExit
    reason: str
    message: str
    advice: str = ""
    exit_code: int | None = None
    started_at: str | None = None
    finished_at: str | None = None
    termination: Termination | None = None

    @property
    def finished(self) -> bool:
        """Whether the trainer reported that the run finished."""
        return self.exit_code == 0 and self.termination is not None and self.termination.outcome is Outcome.FINISHED

    @property
    def sentence(self) -> str:
        """Message and advice in one text."""
        return " ".join(part for part in (self.message, self.advice) if part)


POD_LOST = Ending(
    action=OnExit.IGNORE,
    reason="PodLost",
    message="The pod was deleted, or its node was lost, before its end was seen.",
)


def pod_ending(pod: Object, memory: ContainerMemory) -> Ending | None:
    """Return how a pod ended; None while it has not.

    Args:
        pod: The pod.
        memory: Of its container, for the advice.
    """
    terminated = container_state(pod).get("terminated")
    if terminated is None:
        return _ended_without_container(pod) if pod_ended(pod) else None
    code = int(terminated["exitCode"])
    termination = parse_termination(terminated.get("message"))
    reason, message, advice = _explain(pod, terminated, termination, memory)
    return Ending(
        action=_action(pod, code),
        reason=reason[:128],
        message=redact(message)[:_MESSAGE_LIMIT],
        advice=redact(advice),
        exit_code=code,
        started_at=terminated.get("startedAt"),
        finished_at=terminated.get("finishedAt"),
        termination=termination,
    )


def seconds_to_await_kubelet(pod: Object, now: datetime) -> float | None:
    """Return the seconds for which the kubelet's verdict on an ended container is awaited; None where it is not.

    The pod's phase and reason follow its container's end a moment later. Only they distinguish an eviction from another
    SIGTERM or SIGKILL.
    """
    state = terminated(pod)
    if not state or "finishedAt" not in state or pod_ended(pod) or other_running_containers(pod):
        return None
    code = int(state["exitCode"])
    if code <= _LAST_EXIT_CODE and code not in codes_for(OnExit.IGNORE):
        return None
    left = _VERDICT_SECONDS - (now - parse_time(state["finishedAt"])).total_seconds()
    return left if left > 0 else None


def parse_termination(text: str | None) -> Termination | None:
    """Parse a trainer's termination message; None for anything else, such as the end of a log."""
    try:
        return Termination.model_validate_json(text or "")
    except ValidationError:
        return None


def disruption(pod: Object) -> tuple[str, str] | None:
    """Return reason and sentence of an eviction, preemption or lost node; None when there was none."""
    found = condition(pod, "DisruptionTarget")
    if found is None or found["status"] != "True":
        return None
    cause = found.get("reason", "")
    reason, message = _DISRUPTIONS.get(cause, (cause or "Disrupted", found.get("message", "")))
    detail = ((pod.get("status") or {}).get("message") or "").strip() if cause == _BY_KUBELET else ""
    return reason, f"{message} {redact(detail)}".strip()


def _action(pod: Object, code: int) -> OnExit:
    """Return the action of the first matching rule of the podFailurePolicy.

    An end by the kubelet that is no disruption is the pod's own fault. It counts whatever the exit code: SIGTERM, which
    leads to a free restart otherwise, and SIGKILL follow each other within a second then.
    """
    known = EXIT_CODES[ExitCode(code)].action if code in ExitCode.__members__.values() else OnExit.COUNT
    if known is OnExit.COMPLETE:
        return known
    if disruption(pod):
        return OnExit.IGNORE
    return OnExit.COUNT if known is OnExit.IGNORE and _kubelet_verdict(pod) else known


def _explain(
    pod: Object, terminated: Object, termination: Termination | None, memory: ContainerMemory
) -> tuple[str, str, str]:
    code, kubelet_reason = int(terminated["exitCode"]), terminated.get("reason") or ""
    if kubelet_reason == "OOMKilled":
        return _out_of_memory(memory)
    if kubelet_reason in _START_FAILURES:
        return kubelet_reason, f"The container could not start: {terminated.get('message', '')}", ""
    outer_cause = _outer_cause(pod, code)
    if outer_cause is not None:
        return outer_cause
    if termination is not None:
        return termination.reason, termination.message, termination.advice
    if code > _LAST_EXIT_CODE:
        return _killed(pod, code, kubelet_reason)
    return _unexplained(code, terminated.get("message") or "")


def _outer_cause(pod: Object, code: int) -> tuple[str, str, str] | None:
    """Return why a pod was ended that did not end by itself; None for others."""
    disrupted = disruption(pod)
    if disrupted is not None and code != 0:
        return (*disrupted, "")
    return _kubelet_verdict(pod) if _action(pod, code) is OnExit.COUNT else None


def _kubelet_verdict(pod: Object) -> tuple[str, str, str] | None:
    """Return reason, message and advice of a pod that the kubelet failed for what the pod did; None for others."""
    status = pod.get("status") or {}
    reason, detail = status.get("reason") or "", (status.get("message") or "").strip()
    if status.get("phase") != "Failed" or not reason or disruption(pod):
        return None
    if reason != "Evicted":
        return reason, f"The kubelet ended the pod ({reason}){f': {detail}' if detail else '.'}", ""
    text = f"The kubelet evicted the pod{f': {detail}' if detail else ', which used more storage than it may.'}"
    return EVICTED_BY_KUBELET, text, _storage_advice(detail)


def _storage_advice(detail: str) -> str:
    """Return which limit to raise; the detail is the kubelet's message."""
    volume = _VOLUME.search(detail)
    if volume is None:
        return (
            "Raise spec.resources.ephemeralStorage. Where it is not set, the limit is the default of the chart or of a "
            "LimitRange of the namespace."
        )
    field = _VOLUME_FIELDS.get(volume[1])
    return f"Raise spec.resources.{field}." if field else ""


def _out_of_memory(memory: ContainerMemory) -> tuple[str, str, str]:
    fields = " or ".join(f"spec.{field}" for field in memory.fields)
    return (
        "OOMKilled",
        f"The container used more than its memory limit of {memory.limit} and was killed.",
        f"Raise spec.resources.memory, or lower {fields}.",
    )


def _killed(pod: Object, code: int, kubelet_reason: str) -> tuple[str, str, str]:
    """Explain an exit code above 128: a signal (128 + its number), or an end that was not observed."""
    if kubelet_reason in _UNSEEN_ENDS:
        return "NodeRestarted", "The container was gone when its node, or the node's container runtime, came back.", ""
    number = code - _LAST_EXIT_CODE
    known = {int(entry): entry.name for entry in signal.Signals}
    message = f"The container was ended by {known.get(number, f'signal {number}')} (exit code {code})."
    if number == signal.SIGKILL and pod["metadata"].get("deletionTimestamp"):
        return (
            reason_for(code),
            f"{message} It did not stop within its grace period.",
            "Raise spec.checkpoints.gracePeriodSeconds, so that a checkpoint can be written.",
        )
    return reason_for(code), message, ""


def _unexplained(code: int, log: str) -> tuple[str, str, str]:
    """Explain an exit without a termination message; for a failure the kubelet reports the end of the log instead."""
    known = code in ExitCode.__members__.values()
    message = EXIT_CODES[ExitCode(code)].description if known else f"The container ended with exit code {code}."
    output = tail(log, _OUTPUT_LIMIT)
    if output:
        message += f" Its last output: {output}"
    return reason_for(code), message, ""


def _ended_without_container(pod: Object) -> Ending:
    """Return the end of a pod whose container never ran, or whose node never reported it."""
    status = pod.get("status", {})
    succeeded, disrupted = status.get("phase") == "Succeeded", disruption(pod)
    if is_gone(pod) and status.get("phase") != "Failed" and not disrupted:
        return POD_LOST
    pod_reason = status.get("reason") or "PodFailed"
    message = status.get("message") or f"The pod ended ({pod_reason}) before its container ran."
    reason, message, advice = (*disrupted, "") if disrupted else _kubelet_verdict(pod) or (pod_reason, message, "")
    action = OnExit.COMPLETE if succeeded else OnExit.IGNORE if disrupted else OnExit.COUNT
    return Ending(action=action, reason=reason[:128], message=redact(message)[:_MESSAGE_LIMIT], advice=redact(advice))
