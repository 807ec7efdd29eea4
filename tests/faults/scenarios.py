"""Scenarios of one TrainingJob, in which the test acts as the kubelet, and the final state of the namespace.

The kubelet waits until each phase is in the status, because a short phase may be skipped in some runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.api.gateway_support import until
from tests.api.operator_support import Team, TrainingJob, termination

Object = dict[str, Any]
NAME = "life"

_TIMES = re.compile(r"(Time|At|Timestamp)$")
_VOLATILE_FIELDS = {"podUID", "pod", "uid", "eta", "elapsed", "runningSeconds", "currentEpoch"}


def succeed(team: Team) -> TrainingJob:
    """Run a job that succeeds."""
    job = team.create(NAME)
    job.finish(_run(job))
    job.wait("Succeeded")
    return job


def suspend_and_resume(team: Team) -> TrainingJob:
    """Run a job that is suspended, resumed and succeeds."""
    job = team.create(NAME)
    pod = _run(job)
    job.patch(suspend=True)
    pod.wait_for_deletion()
    job.wait("Suspending")
    pod.end(75, termination("Interrupted", step=42, message="Saved at step 42.", exit_code=75, reason="Interrupted"))
    job.wait("Suspended")
    job.patch(suspend=False)
    job.finish(_run(job))
    job.wait("Succeeded")
    return job


def stop(team: Team) -> TrainingJob:
    """Run a job that is stopped gracefully."""
    job = team.create(NAME)
    pod = _run(job)
    job.patch(stop="Graceful")
    pod.wait_for_deletion()
    job.wait("Stopping")
    message = termination("Interrupted", step=7, message="Saved at step 7.", exit_code=75, reason="Interrupted")
    job.report(message)
    pod.end(75, message)
    job.wait("Stopped")
    until(lambda: not team.names("jobs", "batch/v1"))
    return job


def fail(team: Team) -> TrainingJob:
    """Run a job that fails with bad data."""
    job = team.create(NAME)
    message = termination("Failed", step=0, message="Line 7 is not JSON.", exit_code=65, reason="BadData")
    _run(job).end(65, message)
    job.wait("Failed")
    return job


def delete(team: Team) -> TrainingJob:
    """Run a job that is deleted."""
    job = team.create(NAME)
    pod = _run(job)
    until(lambda: "trainyard-ca" in team.names("configmaps"))
    job.delete()
    until(lambda: not team.names("jobs", "batch/v1"))
    pod.wait_for_deletion()
    if pod.read() is not None:
        pod.end(75)
    until(lambda: not team.names("pods") and team.names("configmaps") == ["kube-root-ca.crt"])
    return job


SCENARIOS: dict[str, Callable[[Team], TrainingJob]] = {
    "succeed": succeed,
    "resume": suspend_and_resume,
    "stop": stop,
    "fail": fail,
    "delete": delete,
}


def _run(job: TrainingJob) -> Any:
    pod = job.pod()
    job.wait("Starting")
    pod.start()
    job.wait("Running")
    return pod


def final_state(team: Team) -> Object:
    """Return the state of a namespace that must not depend on faults."""
    return {
        "jobs": [_trainingjob(each) for each in _items(team, "apis/trainyard.dev/v1alpha1", "trainingjobs")],
        "children": [_child(each) for each in _items(team, "apis/batch/v1", "jobs")],
        "pods": sorted(_pod(each) for each in _items(team, "api/v1", "pods")),
        "configmaps": sorted(_without_suffix(name) for name in team.names("configmaps")),
        "claims": sorted(_without_suffix(name) for name in team.names("persistentvolumeclaims")),
    }


def event_reasons(team: Team) -> list[str]:
    """Return the reasons of the TrainingJob's Events, oldest first."""
    events = _items(team, "apis/events.k8s.io/v1", "events")
    own = [each for each in events if each["regarding"]["kind"] == "TrainingJob"]
    return [str(each["reason"]) for each in sorted(own, key=lambda each: str(each["eventTime"]))]


def _items(team: Team, group: str, plural: str) -> list[Object]:
    items: list[Object] = team.client.get(f"/{group}/namespaces/{team.namespace}/{plural}")["items"]
    return items


def _trainingjob(job: Object) -> Object:
    return {"finalizers": job["metadata"].get("finalizers"), "status": normalise(job.get("status", {}))}


def _child(job: Object) -> Object:
    metadata, status = job["metadata"], job.get("status", {})
    return {
        "name": _without_suffix(metadata["name"]),
        "labels": sorted(metadata["labels"]),
        "owners": [owner["name"] for owner in metadata["ownerReferences"]],
        "suspend": job["spec"].get("suspend", False),
        "conditions": sorted(each["type"] for each in status.get("conditions", []) if each["status"] == "True"),
        "counts": {key: status[key] for key in ("active", "failed", "succeeded") if key in status},
    }


def _pod(pod: Object) -> str:
    return f"{pod['metadata']['labels'].get('trainyard.dev/role')} {pod['status'].get('phase')}"


def normalise(value: Any) -> Any:
    """Return a value without times, UIDs and generated names."""
    if isinstance(value, dict):
        kept = {key: each for key, each in value.items() if key not in _VOLATILE_FIELDS and not _TIMES.search(key)}
        return {key: normalise(each) for key, each in kept.items()}
    if isinstance(value, list):
        return [normalise(each) for each in value]
    return _without_suffix(value) if isinstance(value, str) else value


def _without_suffix(text: str) -> str:
    return re.sub(rf"{NAME}-[0-9a-f]{{8}}(-[a-z0-9]{{5,10}})?", NAME, text)
