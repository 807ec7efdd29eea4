"""Builds what a policy decides from: a TrainingJob with its Job and pods on 2 January 2026."""

from __future__ import annotations

import json
from typing import Any

from tests.unit.operator.trainingjob.state_model import (
    ADMITTED,
    CHILD,
    CHILD_UID,
    DAY,
    NAMESPACE,
    SETTINGS,
    at,
    merged,
    need_of,
    new_job,
    new_pod,
    observed_of,
)
from trainyard_kube.paths import Object
from trainyard_operator.admission.decision import Admission
from trainyard_operator.reconcile.plan import Need, Refusal
from trainyard_operator.trainingjob.pods.attempts import job_history
from trainyard_operator.trainingjob.policy_context import PolicyContext

CREATED = f"{DAY}10:00:00Z"
GANG: Object = {"resources": {"nodes": 2}}
TRACKED = {"finalizers": ["batch.kubernetes.io/job-tracking"]}


def time(clock: str) -> str:
    """An API timestamp."""
    return f"{DAY}{clock}Z"


def condition(
    kind: str, *, holds: bool = True, reason: str = "R", message: str = "", since: str = "10:00:00"
) -> Object:
    status = "True" if holds else "False"
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": time(since)}


def child(*conditions: Object, suspend: bool = False, labels: dict[str, str] | None = None, **status: Any) -> Object:
    """The training Job."""
    return {
        "metadata": {
            "name": CHILD,
            "namespace": NAMESPACE,
            "uid": CHILD_UID,
            "resourceVersion": "7",
            "creationTimestamp": CREATED,
            "labels": labels or {},
        },
        "spec": {"suspend": suspend, "backoffLimit": 3, "image": "trainer:1"},
        "status": {"conditions": list(conditions), **status},
    }


def pod(name: str = "a", state: Object | None = None, *, phase: str = "Pending", **change: Any) -> Object:
    """A pod of the training Job; `0-a` is one of index 0."""
    states = [] if state is None else [{"name": "trainer", "state": state}]
    made = merged(new_pod(name, CREATED), {"status": {"phase": phase, "containerStatuses": states}})
    found: Object = merged(made, change)
    return found


def running(name: str = "a", *, since: str = "10:00:05", node: str = "n1", **change: Any) -> Object:
    state = {"running": {"startedAt": time(since)}}
    return pod(name, state, phase="Running", **merged({"spec": {"nodeName": node}}, change))


def ended(
    name: str = "a",
    code: int = 0,
    *,
    since: str = "10:00:05",
    until: str = "10:05:00",
    message: Any = "",
    **change: Any,
) -> Object:
    text = message if isinstance(message, str) else json.dumps(message)
    state = {
        "terminated": {"exitCode": code, "startedAt": time(since), "finishedAt": time(until), "message": text},
    }
    phase = "Failed" if code else "Succeeded"
    return pod(name, state, phase=phase, **merged({"spec": {"nodeName": "n1"}}, change))


def report(outcome: str = "Finished", code: int = 0, **values: Any) -> Object:
    """A termination message."""
    return {"outcome": outcome, "exitCode": code, "reason": "Reported", "message": "Done.", **values}


def attempt(number: int = 1, name: str = "a", **values: Any) -> Object:
    """An entry of status.attempts."""
    return {"number": number, "pod": f"{CHILD}-{name}", "podUID": f"pod-{name}", **values}


def context(
    *pods: Object,
    child: Object | None = None,
    spec: Object | None = None,
    status: Object | None = None,
    now: str = "10:10:00",
    admission: Admission = ADMITTED,
    answers: dict[tuple[str, str], Any] | None = None,
    refusal: Refusal | None = None,
    metadata: Object | None = None,
    **observed: Any,
) -> PolicyContext:
    """What a policy decides from."""
    job = merged(new_job(), {"spec": spec or {}, "status": status or {}, "metadata": metadata or {}})
    found = {need_of(*need): answer for need, answer in (answers or {}).items()}
    seen = observed_of(job, child=child, pods=pods, answers=found, refusal=refusal, **observed)
    history = job_history(seen, at(now))
    assert not isinstance(history, Need), history
    return PolicyContext(observed=seen, history=history, settings=SETTINGS, now=at(now), admission=admission)
