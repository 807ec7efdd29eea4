"""Containers beside the trainer that do not end: injected ones, such as a mesh proxy. The trainer's end ends the pod.

A pod is not over before all its containers are, so its Job would wait for ever. Kubernetes itself ends native sidecars
(init containers that restart).
"""

from __future__ import annotations

from dataclasses import replace

from trainyard_crds.exitcodes import ExitCode, OnExit
from trainyard_crds.trainingjob_status import FINAL_PHASES, Phase
from trainyard_kube.paths import Object
from trainyard_operator.reconcile.fields import owned_by, parse_time
from trainyard_operator.reconcile.plan import Deletion, Need
from trainyard_operator.trainingjob.k8s_fields import (
    is_being_deleted,
    job_suspended,
    other_running_containers,
    pod_ended,
    terminated,
)
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policies.completion import complete, end_cause, failed
from trainyard_operator.trainingjob.policies.retry_limit import fail_exhausted, is_exhausted
from trainyard_operator.trainingjob.policy_context import PolicyContext

SIDECAR_SECONDS = 30
"""Seconds after the trainer's end in which other containers may end by themselves."""


def end_with_trainer(context: PolicyContext) -> Decision | Need | None:
    """Act on the end of a trainer whose pod goes on because of other containers; None where none does.

    Where the end decides the job, its final phase leads to the deletion of its Job. Otherwise the pod is deleted, and
    the Job controller counts and replaces it as it does with each failed pod.
    """
    child = context.child
    if child is None or job_suspended(child) or context.spec.suspend:
        return None
    held = [pod for pod in context.observed.pods if owned_by(pod, child["metadata"]["uid"]) and _is_held(pod, context)]
    if not held:
        return None
    left = min(_seconds_left(pod, context) for pod in held)
    if left > 0:
        return Decision(phase=None, requeue_after=left)
    due = [pod for pod in held if _seconds_left(pod, context) <= 0]
    decided = _verdict(context) if context.history.pod in due else None
    if isinstance(decided, Need):
        return decided
    if decided is not None:
        final = decided.phase in FINAL_PHASES
        return replace(decided, message=f"{decided.message} {_sentence(due)}") if final else decided
    return _restarted(context, due)


def _is_held(pod: Object, context: PolicyContext) -> bool:
    """Return whether a pod goes on without its trainer; a finished peer of a gang waits for the first pod's end."""
    state = terminated(pod)
    if not state or "finishedAt" not in state or pod_ended(pod) or is_being_deleted(pod):
        return False
    is_finished_peer = state["exitCode"] == ExitCode.FINISHED and pod is not context.history.pod
    return bool(other_running_containers(pod)) and not is_finished_peer


def _seconds_left(pod: Object, context: PolicyContext) -> float:
    return SIDECAR_SECONDS - (context.now - parse_time(terminated(pod)["finishedAt"])).total_seconds()


def _verdict(context: PolicyContext) -> Decision | Need | None:
    """Return what the Job controller would conclude once the pod is over; None where another attempt follows."""
    end = context.history.verdict
    if end is None:
        return None
    if end.action is OnExit.COMPLETE:
        return complete(context)
    if end.action is OnExit.FAIL:
        return failed(context.observed, context.history, *end_cause(context.history))
    return fail_exhausted(context) if is_exhausted(context) else None


def _restarted(context: PolicyContext, pods: list[Object]) -> Decision:
    last = context.history.last or {}
    cause = f"Attempt {last['number']} ended: {last['message']} " if "message" in last else ""
    return Decision(
        phase=Phase.STARTING,
        reason="Restarting",
        message=f"{cause}{_sentence(pods)} The next attempt follows.",
        delete=tuple(Deletion("pods", pod["metadata"]["name"], pod["metadata"]["uid"]) for pod in pods),
    )


def _sentence(pods: list[Object]) -> str:
    names = ", ".join(sorted({name for pod in pods for name in other_running_containers(pod)}))
    return (
        f"The trainer's end did not end the container {names} of its pod within {SIDECAR_SECONDS} s, so the operator "
        "deletes the pod; switch off its injection with an annotation in spec.pod, or use a native sidecar."
    )
